// What is remembered as checked, and what a read that may go to the disk takes back.
#include "storage/verified_chunks.h"

#include <gtest/gtest.h>

#include "storage/segment_format.h"

namespace basalt::storage {
namespace {

BlobRef blob_of(BlobKind kind, uint32_t file, uint64_t offset, uint64_t length) {
  BlobRef blob;
  blob.kind = static_cast<uint8_t>(kind);
  blob.file = file;
  blob.generation = 7;
  blob.offset = offset;
  blob.length = length;
  return blob;
}

void verify(VerifiedChunks& chunks, const BlobRef& blob, uint64_t first, uint64_t last) {
  chunks.set(blob, first, last, chunks.stamp(blob, first, last));
}

TEST(VerifiedChunks, AColdReadTakesBackItsChunksAndNoOthers) {
  VerifiedChunks chunks;
  const BlobRef blob = blob_of(BlobKind::kFile, 3, 0, 100 * kBlobChunkBytes);
  EXPECT_FALSE(chunks.is_set(blob, 0, 0));
  verify(chunks, blob, 0, 99);
  EXPECT_TRUE(chunks.is_set(blob, 0, 99));
  chunks.cold_read(blob, 30, 40);
  for (uint64_t chunk = 0; chunk < 100; ++chunk)
    EXPECT_EQ(chunks.is_set(blob, chunk, chunk), chunk < 30 || chunk > 40) << chunk;
  EXPECT_FALSE(chunks.is_set(blob, 0, 99));
  EXPECT_FALSE(chunks.is_set(blob, 29, 30));
  EXPECT_TRUE(chunks.is_set(blob, 16, 29));
  verify(chunks, blob, 30, 40);
  EXPECT_TRUE(chunks.is_set(blob, 0, 99));
}

TEST(VerifiedChunks, AnotherLifeOfTheFileIsAnotherBlob) {
  VerifiedChunks chunks;
  for (const BlobKind kind : {BlobKind::kBulk, BlobKind::kLog}) {
    BlobRef blob = blob_of(kind, 3, 8192, 100'000);
    verify(chunks, blob, 0, 1);
    EXPECT_TRUE(chunks.is_set(blob, 0, 1));
    blob.generation = 8;
    EXPECT_FALSE(chunks.is_set(blob, 0, 1));
    blob.generation = 7;
    blob.file = 4;
    EXPECT_FALSE(chunks.is_set(blob, 0, 1));
  }
}

// A body in the log shares its first and last page with its neighbours, and a read of a neighbour
// brings that page in without looking at our part of it.
TEST(VerifiedChunks, ColdReadsOfNeighboursInTheLogCount) {
  VerifiedChunks chunks;
  const BlobRef before = blob_of(BlobKind::kLog, 5, 8192 + 128, 50'000);
  const BlobRef body = blob_of(BlobKind::kLog, 5, before.offset + 50'000, 60'000);
  const BlobRef after = blob_of(BlobKind::kLog, 5, body.offset + 60'000, 50'000);
  const BlobRef far = blob_of(BlobKind::kLog, 5, after.offset + 500'000, 50'000);
  for (const BlobRef& neighbour : {before, after, body}) {
    verify(chunks, body, 0, 0);
    EXPECT_TRUE(chunks.is_set(body, 0, 0));
    chunks.cold_read(far, 0, 0);
    EXPECT_TRUE(chunks.is_set(body, 0, 0));
    chunks.cold_read(neighbour, 0, 0);
    EXPECT_FALSE(chunks.is_set(body, 0, 0));
  }
  // A check that began before the neighbour's read says nothing about the page that it brought.
  const uint64_t stamp = chunks.stamp(body, 0, 0);
  chunks.cold_read(after, 0, 0);
  chunks.set(body, 0, 0, stamp);
  EXPECT_FALSE(chunks.is_set(body, 0, 0));
}

// The bytes were looked at before somebody read the place anew: nothing is known of those.
TEST(VerifiedChunks, ACheckThatBeganBeforeAColdReadDoesNotCount) {
  VerifiedChunks chunks;
  const BlobRef blob = blob_of(BlobKind::kBulk, 3, 1 << 20, 100 * kBlobChunkBytes);
  const uint64_t stamp = chunks.stamp(blob, 10, 20);
  const uint64_t far = chunks.stamp(blob, 80, 85);
  chunks.cold_read(blob, 15, 15);
  chunks.set(blob, 10, 20, stamp);
  EXPECT_FALSE(chunks.is_set(blob, 15, 15));
  chunks.set(blob, 80, 85, far);
  EXPECT_TRUE(chunks.is_set(blob, 80, 85));
  verify(chunks, blob, 10, 20);
  EXPECT_TRUE(chunks.is_set(blob, 10, 20));
}

// Above one chunk the body's table is read with it, and may lie on one page more.
TEST(VerifiedChunks, TheTableOfALogBodyIsPartOfIt) {
  VerifiedChunks chunks;
  const BlobRef body =
      blob_of(BlobKind::kLog, 5, 8192 + kBlockBytes - (70'000 % kBlockBytes), 70'000);
  const BlobRef after = blob_of(BlobKind::kLog, 5, body.offset + 70'000 + 64, 40'000);
  ASSERT_EQ((body.offset + body.length) % kBlockBytes, 0u);
  verify(chunks, body, 0, 1);
  chunks.cold_read(after, 0, 0);
  EXPECT_FALSE(chunks.is_set(body, 0, 1));
}

}  // namespace
}  // namespace basalt::storage
