// SHA-256 and HMAC of the signature path: every way this processor can compress blocks, compared
// with OpenSSL's EVP functions for each length around the block borders and for texts given in
// pieces. And the comparisons without branches, against simple ones.
#include "auth/sha256.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <random>
#include <string>

#include "auth/canonical.h"
#include "auth/digest.h"

namespace basalt::auth {
namespace {

std::string random_text(std::mt19937_64& random, size_t size) {
  std::string text(size, '\0');
  for (char& c : text) c = static_cast<char>(random());
  return text;
}

Sha256Digest of_openssl(std::string_view text) {
  Sha256Digest out;
  unsigned size = 0;
  EXPECT_EQ(EVP_Digest(text.data(), text.size(), out.data(), &size, EVP_sha256(), nullptr), 1);
  return out;
}

constexpr Sha256State kInitial = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                  0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

TEST(Sha256, EveryPathAgreesWithOpenSsl) {
  std::mt19937_64 random(1);
  ASSERT_NE(sha256_compress_all()[0], nullptr);
  for (const Sha256Compress compress : sha256_compress_all()) {
    if (compress == nullptr) continue;
    for (size_t size = 0; size < 600; ++size) {
      const std::string text = random_text(random, size);
      Sha256 whole(kInitial, 0, compress);
      whole.update(text);
      ASSERT_EQ(whole.finish(), of_openssl(text)) << size;
      Sha256 pieces(kInitial, 0, compress);
      for (std::string_view rest = text; !rest.empty();) {
        const size_t step = std::min<size_t>(random() % 150, rest.size());
        pieces.update(rest.substr(0, step));
        rest.remove_prefix(step);
      }
      ASSERT_EQ(pieces.finish(), of_openssl(text)) << size;
    }
    // Any alignment, many blocks.
    const std::string large = random_text(random, 100'000);
    for (size_t skip = 0; skip < 17; ++skip) {
      Sha256 hash(kInitial, 0, compress);
      hash.update(std::string_view(large).substr(skip));
      ASSERT_EQ(hash.finish(), of_openssl(std::string_view(large).substr(skip)));
    }
  }
}

TEST(Sha256, TheChosenPathIsTheOneInUse) {
  Sha256 hash;
  hash.update("abc");
  EXPECT_EQ(hash.finish(), of_openssl("abc"));
  hash.reset();
  EXPECT_EQ(hex_digest(hash.finish()).view(), kEmptySha256);
  EXPECT_EQ(sha256("xyz"), of_openssl("xyz"));
}

TEST(Sha256, HmacAgreesWithOpenSsl) {
  std::mt19937_64 random(2);
  for (size_t size = 0; size < 200; ++size) {
    const std::string key = random_text(random, size), text = random_text(random, 3 * size);
    const HmacSha256 hmac(as_bytes(key));
    Sha256Digest expected;
    unsigned length = 0;
    HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
         reinterpret_cast<const uint8_t*>(text.data()), text.size(), expected.data(), &length);
    ASSERT_EQ(hmac.sign(text), expected) << size;
    ASSERT_EQ(hmac.sign(text), expected) << "used again";
  }
}

TEST(Sha256, HexDigitsOfEveryByte) {
  for (unsigned byte = 0; byte < 256; ++byte) {
    Sha256Digest digest;
    digest.fill(static_cast<uint8_t>(byte));
    const HexDigest hex = hex_digest(digest);
    EXPECT_EQ(hex.view(), to_hex(digest));
    Sha256Digest back{};
    EXPECT_TRUE(decode_hex(hex.view(), back));
    EXPECT_EQ(back, digest);
  }
}

TEST(Sha256, HexDigitsAreCheckedAtEveryPlace) {
  const std::string zeros(64, '0');
  for (size_t at = 0; at < zeros.size(); ++at) {
    for (unsigned c = 0; c < 256; ++c) {
      std::string text = zeros;
      text[at] = static_cast<char>(c);
      const auto expected = from_hex(text);
      Sha256Digest out{};
      ASSERT_EQ(decode_hex(text, out), expected.has_value()) << at << " " << c;
      if (expected) ASSERT_EQ(as_text(out), *expected) << at << " " << c;
    }
  }
}

TEST(Canonical, TextOfEachLengthIsCopied) {
  std::mt19937_64 random(4);
  for (size_t size = 0; size < 100; ++size) {
    const std::string text = random_text(random, size);
    std::string out(size + 2, '#');
    EXPECT_EQ(write_text(text, out.data() + 1), out.data() + 1 + size);
    EXPECT_EQ(out, "#" + text + "#");
  }
}

TEST(Compare, ConstantTimeEqualitySeesEveryByte) {
  std::mt19937_64 random(3);
  for (size_t size = 0; size < 100; ++size) {
    const std::string text = random_text(random, size);
    EXPECT_TRUE(equal_constant_time(as_bytes(text), as_bytes(std::string(text))));
    for (size_t at = 0; at < size; ++at) {
      std::string other = text;
      other[at] = static_cast<char>(other[at] ^ (1 << random() % 8));
      EXPECT_FALSE(equal_constant_time(as_bytes(text), as_bytes(other))) << size << " " << at;
    }
    EXPECT_FALSE(equal_constant_time(as_bytes(text), as_bytes(text + '\0')));
  }
}

// Every byte at every place of names of each length: only A-Z have another form.
TEST(Compare, IgnoringCaseIsAsciiLettersOnly) {
  for (size_t size = 1; size <= 20; ++size) {
    const std::string base(size, 'q');
    for (size_t at = 0; at < size; ++at) {
      for (unsigned sent = 0; sent < 256; ++sent) {
        std::string text = base;
        text[at] = static_cast<char>(sent);
        for (const unsigned wanted :
             {'a', 'z', 'm', '-', '`', '{', '0', '~', '^', '_', '@', '[', '!', '1'}) {
          std::string lower = base;
          lower[at] = static_cast<char>(wanted);
          const unsigned lowered = sent >= 'A' && sent <= 'Z' ? sent + 32 : sent;
          ASSERT_EQ(equals_ignoring_case(text, lower), lowered == wanted)
              << size << " " << at << " " << sent << " " << wanted;
        }
      }
    }
  }
  EXPECT_FALSE(equals_ignoring_case("ab", "abc"));
  EXPECT_TRUE(starts_with_ignoring_case("X-Amz-Date", "x-amz-"));
  EXPECT_FALSE(starts_with_ignoring_case("X-Am", "x-amz-"));
}

TEST(Canonical, HeaderValuesAreFolded) {
  const auto written = [](std::string_view value) -> std::string {
    const HeaderView header{"Name", value};
    const std::string_view name = "name";
    std::string out(value.size() + 100, '\0');
    std::string_view missing;
    char* end = write_canonical_headers({&header, 1}, {&name, 1}, out.data(), missing);
    return end == nullptr ? "bad" : out.substr(0, static_cast<size_t>(end - out.data()));
  };
  EXPECT_EQ(written(""), "name:\n");
  EXPECT_EQ(written("plain"), "name:plain\n");
  EXPECT_EQ(written(" \t plain\t "), "name:plain\n");
  EXPECT_EQ(written("a  b \t c"), "name:a b c\n");
  EXPECT_EQ(written("0123456789 abcdef"), "name:0123456789 abcdef\n");
  EXPECT_EQ(written("0123456789  abcdef"), "name:0123456789 abcdef\n");
  EXPECT_EQ(written("0123456789abcdef\x01"), "name:0123456789abcdef\x01\n");
  EXPECT_EQ(written("0123456789abcdef\xff"), "name:0123456789abcdef\xff\n");
  for (size_t size = 1; size < 40; ++size) {
    for (size_t at = 0; at < size; ++at) {
      for (const char c : {'\n', '\r'}) {
        std::string value(size, 'v');
        value[at] = c;
        EXPECT_EQ(written(value), "bad") << size << " " << at;
      }
    }
  }
}

}  // namespace
}  // namespace basalt::auth
