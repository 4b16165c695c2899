#include "bench/signer.h"

#include <algorithm>
#include <charconv>

#include "auth/time_text.h"

namespace basalt::bench {
namespace {

constexpr std::string_view kUnsigned = "UNSIGNED-PAYLOAD";
constexpr std::string_view kStreaming = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
constexpr std::string_view kStreamingTrailer = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER";
constexpr std::string_view kUnsignedTrailer = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";
constexpr std::string_view kTrailerName = "x-amz-checksum-crc32";
constexpr std::string_view kChunkSignature = ";chunk-signature=";
constexpr std::string_view kTrailerSignature = "x-amz-trailer-signature:";
constexpr std::string_view kPresignSeconds = "3600";

void append_number(uint64_t value, int base, std::string& out) {
  char digits[24];
  const auto end = std::to_chars(digits, digits + sizeof digits, value, base).ptr;
  out.append(digits, end);
}

size_t hex_digits(uint64_t value) {
  size_t count = 1;
  while (value >>= 4) ++count;
  return count;
}

// How long an aws-chunked body is.
uint64_t framed_bytes(uint64_t size, bool is_signed, bool trailer) {
  const uint64_t signature = is_signed ? kChunkSignature.size() + 64 : 0;
  const uint64_t chunk = Bodies::kChunkBytes;
  uint64_t total = size / chunk * (hex_digits(chunk) + signature + 4 + chunk);
  if (const uint64_t rest = size % chunk; rest != 0)
    total += hex_digits(rest) + signature + 4 + rest;
  total += 1 + signature + 2;
  if (trailer) {
    total += kTrailerName.size() + 1 + 8 + 2;
    if (is_signed) total += kTrailerSignature.size() + 64 + 2;
  }
  return total + 2;
}

}  // namespace

void append_encoded(std::string_view text, bool keep_slash, std::string& out) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    const bool plain = (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z') ||
                       (byte >= '0' && byte <= '9') || byte == '-' || byte == '.' || byte == '_' ||
                       byte == '~' || (keep_slash && byte == '/');
    if (plain) {
      out.push_back(c);
    } else {
      out.push_back('%');
      out.push_back(kHex[byte >> 4]);
      out.push_back(kHex[byte & 15]);
    }
  }
}

Signer::Signer(const RunOptions& options, const Bodies& bodies)
    : options_(options), bodies_(bodies) {}

void Signer::set_time(int64_t wall_seconds) {
  if (wall_seconds == second_) return;
  second_ = wall_seconds;
  date_time_ = auth::format_basic_time(wall_seconds);
  if (const int64_t day = wall_seconds / 86400; day != day_) {
    day_ = day;
    const std::string_view date = std::string_view(date_time_).substr(0, 8);
    scope_.assign(date).append("/").append(options_.region).append("/s3/aws4_request");
    auth::SigningKeyCache keys;
    key_ = keys.hmac(options_.access_key, options_.secret_key, date, options_.region, "s3");
  }
  to_sign_prefix_.assign("AWS4-HMAC-SHA256\n")
      .append(date_time_)
      .append("\n")
      .append(scope_)
      .append("\n");
  presign_.assign("X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=");
  append_encoded(options_.access_key, false, presign_);
  presign_.append("%2F");
  append_encoded(scope_, false, presign_);
  presign_.append("&X-Amz-Date=").append(date_time_);
  presign_.append("&X-Amz-Expires=").append(kPresignSeconds).append("&X-Amz-SignedHeaders=host");
}

void Signer::sign_canonical() {
  to_sign_.assign(to_sign_prefix_).append(auth::hex_digest(auth::sha256(canonical_)).view());
  signature_ = auth::hex_digest(key_.sign(to_sign_));
}

void Signer::write_presigned(const RequestLine& line, uint64_t content_length, std::string& head) {
  canonical_.assign(line.method).append("\n").append(line.path).append("\n").append(presign_);
  if (!line.query.empty()) canonical_.append("&").append(line.query);
  canonical_.append("\nhost:")
      .append(options_.endpoint.host_header)
      .append("\n\nhost\n")
      .append(kUnsigned);
  sign_canonical();
  head.assign(line.method).append(" ").append(line.path).append("?").append(presign_);
  if (!line.query.empty()) head.append("&").append(line.query);
  head.append("&X-Amz-Signature=").append(signature_.view()).append(" HTTP/1.1\r\nHost: ");
  head.append(options_.endpoint.host_header).append("\r\n");
  if (content_length != kNoLength) {
    head.append("Content-Length: ");
    append_number(content_length, 10, head);
    head.append("\r\n");
  }
  head.append("\r\n");
}

void Signer::write_head(const RequestLine& line, std::string_view payload_hash,
                        uint64_t content_length, const Streaming* streaming, std::string& head) {
  const auto length_text = [&](std::string& out) {
    append_number(streaming->decoded_length, 10, out);
  };
  head.assign(line.method).append(" ").append(line.path);
  if (!line.query.empty()) head.append("?").append(line.query);
  head.append(" HTTP/1.1\r\nHost: ").append(options_.endpoint.host_header).append("\r\n");
  if (content_length != kNoLength) {
    head.append("Content-Length: ");
    append_number(content_length, 10, head);
    head.append("\r\n");
  }
  if (options_.signing == Signing::kNone) {
    head.append("\r\n");
    return;
  }

  canonical_.assign(line.method)
      .append("\n")
      .append(line.path)
      .append("\n")
      .append(line.query)
      .append("\n");
  if (streaming != nullptr) canonical_.append("content-encoding:aws-chunked\n");
  canonical_.append("host:")
      .append(options_.endpoint.host_header)
      .append("\nx-amz-content-sha256:")
      .append(payload_hash);
  canonical_.append("\nx-amz-date:").append(date_time_).append("\n");
  std::string_view names = "host;x-amz-content-sha256;x-amz-date";
  if (streaming != nullptr) {
    canonical_.append("x-amz-decoded-content-length:");
    length_text(canonical_);
    canonical_.append("\n");
    names = "content-encoding;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length";
    if (streaming->trailer) {
      canonical_.append("x-amz-trailer:").append(kTrailerName).append("\n");
      names =
          "content-encoding;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-"
          "amz-trailer";
    }
  }
  canonical_.append("\n").append(names).append("\n").append(payload_hash);
  sign_canonical();

  if (streaming != nullptr) {
    head.append("Content-Encoding: aws-chunked\r\nx-amz-decoded-content-length: ");
    length_text(head);
    head.append("\r\n");
    if (streaming->trailer) head.append("x-amz-trailer: ").append(kTrailerName).append("\r\n");
  }
  head.append("x-amz-content-sha256: ")
      .append(payload_hash)
      .append("\r\nx-amz-date: ")
      .append(date_time_);
  head.append("\r\nAuthorization: AWS4-HMAC-SHA256 Credential=")
      .append(options_.access_key)
      .append("/")
      .append(scope_);
  head.append(", SignedHeaders=")
      .append(names)
      .append(", Signature=")
      .append(signature_.view())
      .append("\r\n\r\n");
}

std::string_view Signer::payload_hash_of(std::string_view text) {
  if (options_.signing == Signing::kUnsignedPayload) return kUnsigned;
  if (text.empty()) return auth::kEmptySha256;
  text_hash_ = auth::hex_digest(auth::sha256(text));
  return text_hash_.view();
}

void Signer::write_plain(const RequestLine& line, std::string_view text, std::string& head) {
  const bool may_have_body = line.method == "PUT" || line.method == "POST";
  const uint64_t length = may_have_body ? text.size() : kNoLength;
  if (options_.signing == Signing::kPresigned) return write_presigned(line, length, head);
  write_head(line, payload_hash_of(text), length, nullptr, head);
}

void Signer::sign_frame(std::string_view kind, std::string_view middle, std::string_view hash) {
  to_sign_.assign(kind).append("\n").append(date_time_).append("\n").append(scope_).append("\n");
  to_sign_.append(signature_.view()).append("\n").append(middle).append(hash);
  signature_ = auth::hex_digest(key_.sign(to_sign_));
}

void Signer::write_body(const RequestLine& line, const Body& body, std::string& head,
                        std::string& frames, std::vector<Piece>& pieces) {
  pieces.clear();
  frames.clear();
  const Signing signing = options_.signing;
  if (signing == Signing::kPresigned || signing == Signing::kUnsignedPayload ||
      signing == Signing::kHeader || signing == Signing::kNone) {
    if (signing == Signing::kPresigned) {
      write_presigned(line, body.size, head);
    } else {
      write_head(line,
                 signing == Signing::kHeader ? std::string_view(bodies_.digest(body).sha256_hex)
                                             : kUnsigned,
                 body.size, nullptr, head);
    }
    if (body.size != 0) pieces.push_back({.position = body.begin, .size = body.size});
    return;
  }

  const bool is_signed = signing != Signing::kTrailer;
  const bool trailer = signing != Signing::kChunked;
  const BodyDigest& digest = bodies_.digest(body);
  const Streaming streaming{.decoded_length = body.size, .trailer = trailer};
  write_head(line,
             !is_signed ? kUnsignedTrailer
             : trailer  ? kStreamingTrailer
                        : kStreaming,
             framed_bytes(body.size, is_signed, trailer), &streaming, head);

  // The pieces point into `frames`, so it may not grow while they are made.
  const uint64_t chunks = (body.size + Bodies::kChunkBytes - 1) / Bodies::kChunkBytes;
  frames.reserve(framed_bytes(body.size, is_signed, trailer) - body.size);
  size_t frame_begin = 0;
  const auto end_frame = [&] {
    pieces.push_back({.text = frames.data() + frame_begin, .size = frames.size() - frame_begin});
    frame_begin = frames.size();
  };
  for (uint64_t i = 0; i <= chunks; ++i) {
    const uint64_t done = std::min(i * Bodies::kChunkBytes, body.size);
    const uint64_t size = std::min(body.size - done, Bodies::kChunkBytes);  // 0: the last chunk
    append_number(size, 16, frames);
    if (is_signed) {
      const std::string_view hash =
          i < chunks ? std::string_view(digest.chunk_sha256[i].data(), 64) : auth::kEmptySha256;
      static constexpr std::string_view kEmptyLine =
          "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n";
      sign_frame("AWS4-HMAC-SHA256-PAYLOAD", kEmptyLine, hash);
      frames.append(kChunkSignature).append(signature_.view());
    }
    frames.append("\r\n");
    if (i == chunks) break;
    end_frame();
    pieces.push_back({.position = body.begin + done, .size = size});
    frames.append("\r\n");
  }
  if (trailer) {
    frames.append(kTrailerName).append(":").append(digest.crc32_base64).append("\r\n");
    if (is_signed) {
      std::string text(kTrailerName);
      text.append(":").append(digest.crc32_base64).append("\n");
      sign_frame("AWS4-HMAC-SHA256-TRAILER", {}, auth::hex_digest(auth::sha256(text)).view());
      frames.append(kTrailerSignature).append(signature_.view()).append("\r\n");
    }
  }
  frames.append("\r\n");
  end_frame();
}

}  // namespace basalt::bench
