// CompleteMultipartUpload:
// https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html
//
// No byte is copied: the object's record names the parts' blobs in order, in the same batch that
// takes them from the parts.
#include <algorithm>
#include <charconv>
#include <optional>
#include <vector>

#include "protocol/s3/checksum_model.h"
#include "protocol/s3/failure.h"
#include "protocol/s3/multipart.h"
#include "protocol/s3/ops/handlers.h"
#include "protocol/s3/preconditions.h"
#include "protocol/s3/xml.h"

namespace basalt::s3 {
namespace {

// How often the parts are read again because one of them was replaced between the look and the
// completion.
constexpr int kAttemptsMax = 5;
constexpr uint32_t kPartsPage = 1000;

struct WantedPart {
  unsigned number = 0;
  std::string etag;                                                // without quotes
  std::vector<std::pair<auth::Algorithm, std::string>> checksums;  // base64 as sent
};

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

std::optional<uint64_t> parse_number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

S3Result<std::vector<WantedPart>> parse_parts(const std::string& text) {
  pugi::xml_document document;
  auto root = parse_xml(document, text, "CompleteMultipartUpload");
  if (!root) return std::unexpected(std::move(root).error());
  std::vector<WantedPart> parts;
  for (const pugi::xml_node& node : root->children("Part")) {
    if (parts.size() == kPartNumberMax) return s3_fail(S3Code::kMalformedXML);
    const pugi::xml_node number_node = node.child("PartNumber"), etag_node = node.child("ETag");
    if (!number_node || !etag_node) return s3_fail(S3Code::kMalformedXML);
    const std::string number_text = xml_text(number_node);
    const auto number = parse_number(xml_trimmed(number_text));
    if (!number) return s3_fail(S3Code::kMalformedXML);
    if (*number < 1 || *number > kPartNumberMax) {
      return invalid_argument("partNumber", number_text,
                              "PartNumber must be an integer between 1 and 10000, inclusive");
    }
    WantedPart part;
    part.number = static_cast<unsigned>(*number);
    const std::string etag_text = xml_text(etag_node);
    std::string_view etag = xml_trimmed(etag_text);
    if (etag.size() >= 2 && etag.front() == '"' && etag.back() == '"')
      etag = etag.substr(1, etag.size() - 2);
    part.etag = lower(etag);
    for (const auth::Algorithm algorithm : kChecksumAlgorithms) {
      const pugi::xml_node checksum = node.child(std::string(checksum_element(algorithm)).c_str());
      if (!checksum) continue;
      const std::string checksum_value = xml_text(checksum);
      part.checksums.emplace_back(algorithm, std::string(xml_trimmed(checksum_value)));
    }
    if (!parts.empty() && part.number <= parts.back().number)
      return s3_fail(S3Code::kInvalidPartOrder);
    parts.push_back(std::move(part));
  }
  if (parts.empty()) return s3_fail(S3Code::kMalformedXML);
  return parts;
}

S3Error invalid_part(const std::string& upload_id, const WantedPart& part) {
  S3Error error(S3Code::kInvalidPart);
  error.details = {
      {"UploadId", upload_id}, {"PartNumber", std::to_string(part.number)}, {"ETag", part.etag}};
  return error;
}

// The parts as they are stored now. `pages` owns what the entries point into.
struct StoredParts {
  std::vector<storage::ScanPage> pages;
  std::vector<const storage::ScanPage::Entry*> entries;
};

Task<S3Result<StoredParts>> read_parts(Op& op, const UploadId& id) {
  StoredParts stored;
  unsigned after = 0;
  while (true) {
    CO_TRY(page, scan_parts(op, id, after, kPartsPage));
    if (page.entries.empty()) break;
    after = part_number_of(page.entries.back().name);
    const bool more = page.more;
    stored.pages.push_back(std::move(page));
    if (!more || after >= kPartNumberMax) break;
  }
  for (const storage::ScanPage& page : stored.pages) {
    for (const auto& entry : page.entries) stored.entries.push_back(&entry);
  }
  co_return stored;
}

// The object as its parts make it, and which of the stored parts it uses.
struct Assembly {
  std::string etag;
  ObjectFields fields;
  uint64_t size = 0;
  std::vector<storage::BlobRef> blobs;
  std::vector<const storage::ScanPage::Entry*> used;
};

class Assembler {
 public:
  Assembler(const Op& op, const Upload& upload, const fb::Upload& meta,
            const std::vector<WantedPart>& wanted)
      : op_(op),
        upload_id_(upload.id.text()),
        meta_(meta),
        wanted_(wanted),
        kind_(checksum_kind(meta)) {}

  S3Result<Assembly> assemble(const StoredParts& stored) const {
    Assembly assembly;
    assembly.fields = carried_fields(*meta_.object());
    auth::Hasher etags(auth::Algorithm::kMd5);
    PartsChecksum checksum(kind_);
    bool has_checksum = true;
    auto at = stored.entries.begin();
    for (size_t i = 0; i < wanted_.size(); ++i) {
      const WantedPart& part = wanted_[i];
      at = std::find_if(at, stored.entries.end(), [&](const auto* entry) {
        return part_number_of(entry->name) >= part.number;
      });
      if (at == stored.entries.end() || part_number_of((*at)->name) != part.number ||
          (*at)->record.tag != part.etag) {
        return std::unexpected(invalid_part(upload_id_, part));
      }
      const storage::RecordView& record = (*at)->record;
      auto view = PartView::open(record.meta);
      if (!view) return std::unexpected(S3Error(std::move(view).error()));
      const auth::Digest part_checksum = digest_of((*view)->checksum());
      if (auto checked = check_checksum(part, part_checksum); !checked) {
        return std::unexpected(std::move(checked).error());
      }
      if (i + 1 < wanted_.size() && record.size < kPartBytesMin) {
        S3Error error(S3Code::kEntityTooSmall);
        error.details = {{"ProposedSize", std::to_string(record.size)},
                         {"MinSizeAllowed", std::to_string(kPartBytesMin)},
                         {"PartNumber", std::to_string(part.number)},
                         {"ETag", part.etag}};
        return std::unexpected(std::move(error));
      }
      const auto md5 = auth::from_hex(record.tag);
      if (!md5) return std::unexpected(S3Error(Error{Code::kCorrupt, "a part's tag is no MD5"}));
      etags.update(as_bytes(*md5));
      has_checksum = checksum.add(part_checksum, record.size) && has_checksum;
      assembly.size += record.size;
      assembly.blobs.insert(assembly.blobs.end(), record.blobs.begin(), record.blobs.end());
      assembly.fields.parts.push_back(
          {static_cast<uint16_t>(part.number), record.size, part_checksum});
      assembly.used.push_back(*at);
    }
    if (assembly.size > kObjectBytesMax) {
      S3Error error(S3Code::kEntityTooLarge);
      error.details = {{"ProposedSize", std::to_string(assembly.size)},
                       {"MaxSizeAllowed", std::to_string(kObjectBytesMax)}};
      return std::unexpected(std::move(error));
    }
    assembly.etag = auth::to_hex(etags.finish().view()) + "-" + std::to_string(wanted_.size());
    assembly.fields.modified_ms = op_.services.clock.wall_ms();
    if (has_checksum) assembly.fields.checksum = checksum.finish();
    return assembly;
  }

 private:
  S3Result<> check_checksum(const WantedPart& part, const auth::Digest& stored) const {
    const std::string expected = auth::to_base64(stored.view());
    bool found = false;
    for (const auto& [algorithm, value] : part.checksums) {
      if (algorithm != kind_.algorithm) {
        // Without a named algorithm SDKs echo the checksum they sent with the part, of which only
        // the verdict was kept.
        if (!checksum_asked(meta_)) continue;
        return std::unexpected(invalid_part(upload_id_, part));
      }
      if (value != expected) return std::unexpected(invalid_part(upload_id_, part));
      found = true;
    }
    if (!found && checksum_asked(meta_) && !kind_.full_object) {
      return s3_fail(S3Code::kInvalidRequest, "The upload was created using a " +
                                                  lower(checksum_name(kind_.algorithm)) +
                                                  " checksum. The complete request must include "
                                                  "the checksum for each part. It was missing for "
                                                  "part " +
                                                  std::to_string(part.number) + " in the request.");
    }
    return {};
  }

  const Op& op_;
  std::string upload_id_;
  const fb::Upload& meta_;
  const std::vector<WantedPart>& wanted_;
  UploadChecksum kind_;
};

// What the request's headers promise about the whole object.
S3Result<> check_promises(const S3Request& request, const fb::Upload& upload,
                          const Assembly& assembly) {
  const UploadChecksum kind = checksum_kind(upload);
  const std::string_view type = request.header("x-amz-checksum-type");
  if (!type.empty()) {
    if (type != "COMPOSITE" && type != "FULL_OBJECT") {
      return s3_fail(S3Code::kInvalidRequest, "Value for x-amz-checksum-type header is invalid.");
    }
    if (type != checksum_type_name(kind.full_object)) {
      return s3_fail(S3Code::kInvalidRequest,
                     "The upload was created using the " +
                         std::string(checksum_type_name(kind.full_object)) +
                         " checksum mode. The complete request must use the same checksum mode.");
    }
  }
  auto announced = announced_checksum(request);
  if (!announced) return std::unexpected(std::move(announced).error());
  if (*announced) {
    const auto& checksum = assembly.fields.checksum;
    if ((*announced)->algorithm != kind.algorithm || !checksum) {
      return std::unexpected(checksum_mismatch(kind.algorithm, (*announced)->algorithm));
    }
    // Composite values are accepted with and without the number of parts behind them.
    const std::string_view value = (*announced)->value;
    const std::string plain = auth::to_base64(checksum->value.view());
    if (value != checksum_text(*checksum, assembly.fields.parts.size()) && value != plain) {
      return std::unexpected(bad_checksum(kind.algorithm));
    }
  }
  const std::string_view size = request.header("x-amz-mp-object-size");
  if (!size.empty()) {
    const auto announced_size = parse_number(size);
    if (!announced_size) {
      return invalid_argument("x-amz-mp-object-size", size,
                              "Value for x-amz-mp-object-size header is invalid.");
    }
    if (*announced_size != assembly.size) {
      return s3_fail(S3Code::kInvalidRequest,
                     "The provided 'x-amz-mp-object-size' header value " + std::string(size) +
                         " does not match what was computed: " + std::to_string(assembly.size));
    }
  }
  return {};
}

std::string location_of(const Op& op) {
  const http::RequestHead& head = op.exchange.head();
  std::string location = op.exchange.tls() ? "https://" : "http://";
  location += head.host;
  location += '/';
  if (!op.request.virtual_hosted) {
    location += op.request.bucket;
    location += '/';
  }
  location += url_encode(op.request.key, true);
  return location;
}

enum class Outcome : uint8_t { kDone, kPartsChanged };

Task<S3Result<Outcome>> record_object(Op& op, const Upload& upload, const WriteCondition& condition,
                                      const StoredParts& stored, const Assembly& assembly) {
  using Kind = storage::Precondition::Kind;
  std::vector<storage::Precondition> preconditions;
  preconditions.reserve(assembly.used.size() + 2);
  preconditions.push_back({.kind = Kind::kExists, .key = upload_key(op, upload)});
  if (condition) preconditions.push_back(condition.precondition(op.object_key()));
  const size_t first_part = preconditions.size();
  // By sequence, not by tag: the same bytes uploaded again have the same tag but another blob, and
  // the old one is gone.
  for (const auto* entry : assembly.used) {
    preconditions.push_back({.kind = Kind::kSeqEquals,
                             .key = {storage::Table::kPart, op.bucket->space, entry->name},
                             .seq = entry->record.seq});
  }

  const EncodedMeta meta = encode_object(assembly.fields);
  storage::MutationBuilder mutations;
  mutations.put(
      op.object_key(),
      {.size = assembly.size, .tag = assembly.etag, .meta = meta.bytes(), .blobs = assembly.blobs});
  auto used = assembly.used.begin();
  for (const auto* entry : stored.entries) {
    const bool keeps = used != assembly.used.end() && *used == entry;
    if (keeps) ++used;
    mutations.erase({storage::Table::kPart, op.bucket->space, entry->name}, keeps);
  }
  mutations.erase(upload_key(op, upload));

  auto call = op.shards().apply(op.shard(), preconditions, mutations.finish());
  auto applied = co_await call;
  if (applied) co_return Outcome::kDone;
  const Code code = applied.error().code;
  if (code != Code::kNotFound && code != Code::kPreconditionFailed) {
    co_return std::unexpected(std::move(applied).error());
  }
  if (call.failed_index == 0) co_return std::unexpected(no_such_upload(op));
  if (call.failed_index < first_part)
    co_return std::unexpected(condition.failed(applied.error(), op.request.key));
  co_return Outcome::kPartsChanged;
}

}  // namespace

Task<S3Result<Reply>> complete_multipart_upload(Op& op) {
  S3_TRY(wanted, parse_parts(op.xml_body));
  S3_TRY(condition, write_condition(op.request));
  CO_TRY(upload, find_upload(op));
  S3_TRY(view, UploadView::open(upload.record->meta));
  const Assembler assembler(op, upload, *view, wanted);

  for (int attempt = 0; attempt < kAttemptsMax; ++attempt) {
    CO_TRY(stored, read_parts(op, upload.id));
    S3_TRY(assembly, assembler.assemble(stored));
    S3_CHECK(check_promises(op.request, *view, assembly));
    CO_TRY(outcome, record_object(op, upload, condition, stored, assembly));
    if (outcome == Outcome::kPartsChanged) continue;
    // The object is durable: what goes wrong with left-over parts is no error of this request.
    (void)co_await erase_left_parts(op, upload.id);

    XmlWriter xml("CompleteMultipartUploadResult");
    xml.text("Location", location_of(op));
    xml.text("Bucket", op.request.bucket);
    xml.text("Key", op.request.key);
    xml.etag("ETag", assembly.etag);
    if (assembly.fields.checksum) {
      add_checksum_xml(xml, *assembly.fields.checksum, assembly.fields.parts.size());
    }
    co_return Reply::xml(xml.finish());
  }
  co_return s3_fail(S3Code::kOperationAborted);
}

}  // namespace basalt::s3
