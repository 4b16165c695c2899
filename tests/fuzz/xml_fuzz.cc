// xml_fuzz: XML bodies. What parse_xml accepts is shallow, has one root and only UTF-8 text, and
// writing its text again gives a document that reads back as the same text.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "base/bytes.h"
#include "protocol/s3/xml.h"

using namespace basalt;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text = as_text({data, size});
  for (const std::string_view root :
       {"Delete", "CompleteMultipartUpload", "CreateBucketConfiguration"}) {
    pugi::xml_document document;
    const auto parsed = s3::parse_xml(document, text, root);
    if (!parsed) {
      if (parsed.error().code != s3::S3Code::kMalformedXML) abort();
      continue;
    }
    for (const pugi::xml_node child : parsed->children()) {
      const std::string value = s3::xml_text(child);
      if (!s3::valid_utf8(value) || value.find('\0') != std::string::npos) abort();
      s3::XmlWriter writer("R");
      writer.text("T", value);
      const std::string written = writer.finish();
      pugi::xml_document again;
      const auto reread = s3::parse_xml(again, written, "R");
      if (!reread || s3::xml_text(reread->child("T")) != value) abort();
    }
  }
  const auto decoded = s3::percent_decode(text, false);
  if (decoded && s3::percent_decode(s3::url_encode(*decoded, true), false) != *decoded) abort();
  return 0;
}
