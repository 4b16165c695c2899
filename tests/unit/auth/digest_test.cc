// Digests against published values, CRCs against a bit-by-bit reference over random lengths,
// offsets and splits, combine_crc() against the CRC of the whole, and the strict text encodings.
#include "auth/digest.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "auth/crc64.h"

namespace basalt::auth {
namespace {

std::string hex_of(Algorithm algorithm, std::string_view text) {
  return to_hex(digest(algorithm, as_bytes(text)).view());
}

uint64_t crc_bit_by_bit(Bytes data, uint64_t polynomial, unsigned width) {
  const uint64_t ones = width == 64 ? ~uint64_t{0} : (uint64_t{1} << width) - 1;
  uint64_t crc = ones;
  for (uint8_t byte : data) {
    crc ^= byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) ? polynomial : 0);
  }
  return crc ^ ones;
}

uint64_t reference(Algorithm algorithm, Bytes data) {
  switch (algorithm) {
    case Algorithm::kCrc32:
      return crc_bit_by_bit(data, 0xedb88320, 32);
    case Algorithm::kCrc32c:
      return crc_bit_by_bit(data, 0x82f63b78, 32);
    default:
      return crc_bit_by_bit(data, 0x9a6c9329ac4bc9b5, 64);
  }
}

uint64_t value_of(const Digest& digest) {
  uint64_t value = 0;
  for (uint8_t byte : digest.view()) value = value << 8 | byte;
  return value;
}

constexpr Algorithm kCrcs[] = {Algorithm::kCrc32, Algorithm::kCrc32c, Algorithm::kCrc64Nvme};

std::vector<uint8_t> random_bytes(std::mt19937_64& random, size_t count) {
  std::vector<uint8_t> bytes(count);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  return bytes;
}

TEST(Digest, PublishedValues) {
  EXPECT_EQ(hex_of(Algorithm::kMd5, ""), "d41d8cd98f00b204e9800998ecf8427e");
  EXPECT_EQ(hex_of(Algorithm::kMd5, "message digest"), "f96b697d7cb7938d525a2f31aaf161d0");
  EXPECT_EQ(hex_of(Algorithm::kSha1, "abc"), "a9993e364706816aba3e25717850c26c9cd0d89d");
  EXPECT_EQ(hex_of(Algorithm::kSha256, "abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hex_of(Algorithm::kSha256, ""),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hex_of(Algorithm::kCrc32, "123456789"), "cbf43926");
  EXPECT_EQ(hex_of(Algorithm::kCrc32c, "123456789"), "e3069283");
  EXPECT_EQ(hex_of(Algorithm::kCrc64Nvme, "123456789"), "ae8b14860a799888");
  for (Algorithm algorithm : kCrcs) EXPECT_EQ(value_of(digest(algorithm, {})), 0u);
}

TEST(Digest, SizesAreWhatFinishGives) {
  for (size_t i = 0; i < kAlgorithmCount; ++i) {
    const auto algorithm = static_cast<Algorithm>(i);
    EXPECT_EQ(Hasher(algorithm).finish().size, digest_bytes(algorithm));
    EXPECT_EQ(Hasher(algorithm).algorithm(), algorithm);
  }
}

TEST(Digest, SplitsDoNotMatter) {
  std::mt19937_64 random(1);
  for (size_t i = 0; i < kAlgorithmCount; ++i) {
    const auto algorithm = static_cast<Algorithm>(i);
    Hasher hasher(algorithm);
    for (int round = 0; round < 50; ++round) {
      const auto bytes = random_bytes(random, random() % 5000);
      hasher.reset();
      for (size_t at = 0; at < bytes.size();) {
        const size_t step = std::min<size_t>(random() % 700, bytes.size() - at);
        hasher.update(Bytes(bytes).subspan(at, step));
        at += step;
      }
      EXPECT_EQ(hasher.finish(), digest(algorithm, bytes));
    }
  }
}

TEST(Digest, CrcsEqualTheReferenceAtEveryLengthAndOffset) {
  std::mt19937_64 random(2);
  const auto bytes = random_bytes(random, 4096 + 64);
  for (Algorithm algorithm : kCrcs) {
    for (size_t length = 0; length < 400; ++length) {
      const Bytes part = Bytes(bytes).subspan(length % 17, length);
      ASSERT_EQ(value_of(digest(algorithm, part)), reference(algorithm, part)) << length;
    }
    for (int round = 0; round < 200; ++round) {
      const size_t offset = random() % 64;
      const Bytes part = Bytes(bytes).subspan(offset, random() % (bytes.size() - offset));
      ASSERT_EQ(value_of(digest(algorithm, part)), reference(algorithm, part));
    }
  }
}

TEST(Digest, EveryCrc64KernelEqualsTables) {
  std::mt19937_64 random(3);
  const auto bytes = random_bytes(random, 70'000);
  for (int round = 0; round < 300; ++round) {
    const size_t offset = random() % 100;
    const Bytes part = Bytes(bytes).subspan(offset, random() % (round < 200 ? 1000 : 69'000));
    const uint64_t seed = random();
    ASSERT_EQ(crc64_nvme(part, seed), crc64_nvme_portable(part, seed));
    for (const auto& [kernel, value] : crc64_nvme_all(part, seed)) {
      ASSERT_EQ(value, crc64_nvme_portable(part, seed)) << kernel << " " << part.size();
    }
  }
}

TEST(Digest, CombineEqualsTheCrcOfTheWhole) {
  std::mt19937_64 random(4);
  for (Algorithm algorithm : kCrcs) {
    for (int round = 0; round < 200; ++round) {
      const auto bytes = random_bytes(random, random() % 3000);
      const size_t split = bytes.empty() ? 0 : random() % (bytes.size() + 1);
      const Digest a = digest(algorithm, Bytes(bytes).first(split)),
                   b = digest(algorithm, Bytes(bytes).subspan(split));
      ASSERT_EQ(combine_crc(algorithm, a, b, bytes.size() - split), digest(algorithm, bytes));
    }
    // Three parts of which one is larger than 4 GiB: (A B) C and A (B C) must agree.
    const Digest a = digest(algorithm, as_bytes("a")), b = digest(algorithm, as_bytes("b")),
                 c = digest(algorithm, as_bytes("c"));
    const uint64_t b_bytes = (uint64_t{5} << 40) + 12345, c_bytes = 777;
    EXPECT_EQ(combine_crc(algorithm, combine_crc(algorithm, a, b, b_bytes), c, c_bytes),
              combine_crc(algorithm, a, combine_crc(algorithm, b, c, c_bytes), b_bytes + c_bytes));
  }
}

TEST(Digest, HmacSha256OfRfc4231) {
  EXPECT_EQ(to_hex(hmac_sha256(as_bytes("Jefe"), as_bytes("what do ya want for nothing?"))),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  const std::string key(131, '\xaa');
  EXPECT_EQ(to_hex(hmac_sha256(as_bytes(key),
                               as_bytes("Test Using Larger Than Block-Size Key - Hash Key First"))),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

TEST(Digest, HexIsStrict) {
  EXPECT_EQ(to_hex(as_bytes(std::string_view("\x00\xff\x10", 3))), "00ff10");
  EXPECT_EQ(from_hex("00FF10"), std::string("\x00\xff\x10", 3));
  for (const char* bad : {"0", "0g", "g0", " 0", "0x"}) EXPECT_FALSE(from_hex(bad)) << bad;
}

TEST(Digest, Base64IsStrict) {
  const std::pair<std::string_view, std::string_view> pairs[] = {{"", ""},
                                                                 {"f", "Zg=="},
                                                                 {"fo", "Zm8="},
                                                                 {"foo", "Zm9v"},
                                                                 {"foob", "Zm9vYg=="},
                                                                 {"fooba", "Zm9vYmE="},
                                                                 {"foobar", "Zm9vYmFy"}};
  for (const auto& [plain, text] : pairs) {
    EXPECT_EQ(to_base64(as_bytes(plain)), text);
    EXPECT_EQ(from_base64(text), std::string(plain));
  }
  for (const char* bad : {"Z", "Zg", "Zg=", "Zg==Zg==", "Zh==", "Zm9=", "====", "Z===", "=AAA",
                          "Zm9v\n", "Zm9 ", "Zm-_", "Zg=a"}) {
    EXPECT_FALSE(from_base64(bad)) << bad;
  }
  std::mt19937_64 random(5);
  for (int round = 0; round < 100; ++round) {
    const auto bytes = random_bytes(random, random() % 100);
    EXPECT_EQ(from_base64(to_base64(bytes)), std::string(as_text(bytes)));
  }
}

TEST(Digest, EqualConstantTime) {
  EXPECT_TRUE(equal_constant_time({}, {}));
  EXPECT_TRUE(equal_constant_time(as_bytes("ab"), as_bytes("ab")));
  EXPECT_FALSE(equal_constant_time(as_bytes("ab"), as_bytes("ac")));
  EXPECT_FALSE(equal_constant_time(as_bytes("ab"), as_bytes("a")));
}

}  // namespace
}  // namespace basalt::auth
