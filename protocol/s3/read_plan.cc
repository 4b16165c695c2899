#include "protocol/s3/read_plan.h"

#include <string>

#include "protocol/s3/checksum_model.h"
#include "protocol/s3/failure.h"
#include "protocol/s3/http_date.h"
#include "protocol/s3/preconditions.h"
#include "protocol/s3/range.h"
#include "protocol/s3/response_headers.h"

namespace basalt::s3 {
namespace {

// RFC 9110 section 13.1.5: a strong tag, or the exact Last-Modified; otherwise the range is
// ignored.
bool if_range_holds(std::string_view value, std::string_view etag, const fb::Object& object) {
  if (value.starts_with("W/")) return false;
  if (const auto date = parse_http_date(value)) return *date == object.modified_ms() / 1000;
  return value != "*" && etag_matches(value, etag);
}

S3Result<ByteRange> part_range(unsigned number, const storage::RecordView& record,
                               const fb::Object& object) {
  const size_t parts = count_of(object.parts());
  if (parts == 0 && number == 1) return ByteRange{0, record.size};
  uint64_t first = 0;
  for (size_t i = 0; i < parts; ++i) {
    const fb::Part* part = object.parts()->Get(static_cast<flatbuffers::uoffset_t>(i));
    if (part->number() == number) return ByteRange{first, part->size()};
    first += part->size();
  }
  S3Error error(S3Code::kInvalidPartNumber);
  error.details = {{"PartNumberRequested", std::to_string(number)},
                   {"ActualPartCount", std::to_string(parts == 0 ? 1 : parts)}};
  return std::unexpected(std::move(error));
}

}  // namespace

S3Result<unsigned> parse_part_number(std::string_view text) {
  unsigned value = 0;
  bool good = !text.empty() && text.size() <= 6;
  for (const char c : text) {
    if (c < '0' || c > '9') good = false;
    if (good) value = value * 10 + static_cast<unsigned>(c - '0');
  }
  if (!good || value < 1 || value > kPartNumberMax) {
    return invalid_argument("partNumber", text,
                            "Part number must be an integer between 1 and 10000, inclusive");
  }
  return value;
}

S3Result<ReadPlan> plan_read(Op& op, const storage::RecordView& record, const fb::Object& object) {
  const S3Request& request = op.request;
  if (auto checked = check_overrides(op); !checked)
    return std::unexpected(std::move(checked).error());

  const ReadAnswer answer =
      evaluate(read_conditions(request, ConditionSet::kObject), record.tag, object.modified_ms());
  if (answer.verdict == ReadVerdict::kFailed)
    return std::unexpected(precondition_failed(answer.condition));
  if (answer.verdict == ReadVerdict::kNotModified) {
    op.head().status = 304;
    add_not_modified_headers(op.head(), record.tag, object);
    return ReadPlan{304, 0, 0};
  }

  ReadPlan plan{200, 0, record.size};
  const std::string_view range_header = request.header("Range");
  const std::string* part_number = request.parameter("partNumber");
  if (part_number != nullptr) {
    auto number = parse_part_number(*part_number);
    if (!number) return std::unexpected(std::move(number).error());
    if (!range_header.empty()) {
      return s3_fail(S3Code::kInvalidRequest,
                     "Cannot specify both Range header and partNumber query parameter");
    }
    auto range = part_range(*number, record, object);
    if (!range) return std::unexpected(std::move(range).error());
    plan.first = range->first;
    plan.length = range->length;
    // Content-Range cannot say "no bytes".
    if (plan.length != 0) plan.status = 206;
  } else if (!range_header.empty()) {
    const std::string_view if_range = request.header("If-Range");
    if (if_range.empty() || if_range_holds(if_range, record.tag, object)) {
      const RangeAnswer range = parse_range(range_header, record.size);
      if (range.verdict == RangeVerdict::kUnsatisfiable) {
        S3Error error(S3Code::kInvalidRange);
        error.details = {{"RangeRequested", std::string(range_header)},
                         {"ActualObjectSize", std::to_string(record.size)}};
        return std::unexpected(std::move(error));
      }
      if (range.verdict == RangeVerdict::kPartial) {
        plan.status = 206;
        plan.first = range.range.first;
        plan.length = range.range.length;
      }
    }
  }

  http::ResponseHead& head = op.head();
  head.status = plan.status;
  add_object_headers(op, record.tag, object);
  if (plan.status == 206) add_content_range(head, plan.first, plan.length, record.size);
  const size_t parts = count_of(object.parts());
  if (part_number != nullptr && parts != 0) head.add("x-amz-mp-parts-count", uint64_t{parts});
  if (plan.length == record.size &&
      http::field_name_equals(request.header("x-amz-checksum-mode"), "ENABLED")) {
    if (const auto checksum = checksum_of(object)) add_checksum_headers(head, *checksum, parts);
  }
  return plan;
}

}  // namespace basalt::s3
