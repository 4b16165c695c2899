// Blobs: every size and range comes back as it was written, or as an error; space is given back;
// limits hold.
#include "storage/blob_store.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <deque>

#include "storage/files_local.h"
#include "storage/lane.h"
#include "tests/unit/storage/storage_fixture.h"

namespace basalt::storage {
namespace {

class BlobTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    options = small_options(directory.path());
    auto opened = Files::open(options);
    ASSERT_TRUE(opened) << opened.error().detail;
    files = std::move(*opened);
    files->drop_orphans();
    finish_replay(*files);
    core = std::make_unique<TestCore>(GetParam());
    make();
  }
  void make() {
    blobs =
        make_blob_store(*files, 0, options, *core->io, core->run_queue, core->buffers, core->stats);
  }
  void TearDown() override {
    blobs.reset();
    core.reset();
    files.reset();
  }

  // Fills the writer with `bytes`, waiting as a caller would. Then not sealed.
  Status fill(BlobWriter& writer, Bytes bytes) {
    while (!bytes.empty()) {
      MutableBytes room = writer.room();
      if (room.empty()) {
        Waited<WriterReady> ready;
        writer.wait(ready);
        EXPECT_TRUE(core->turn_until([&] { return ready.done; }));
        if (!ready.done) return fail(Code::kTimeout);
        BASALT_CHECK_OK(ready.result);
        continue;
      }
      size_t count = std::min({room.size(), bytes.size(), size_t{100'001}});
      std::memcpy(room.data(), bytes.data(), count);
      writer.advance(count);
      bytes = bytes.subspan(count);
    }
    return {};
  }
  Result<BlobRef> seal(BlobWriter& writer) {
    Waited<SealBlob> seal;
    seal.result = fail(Code::kTimeout);
    writer.seal(seal);
    EXPECT_TRUE(core->turn_until([&] { return seal.done; }));
    if (!seal.result) return std::unexpected(seal.result.error());
    return seal.result->ref;
  }
  Result<BlobRef> store(Bytes bytes, bool known = true) {
    auto writer = blobs->create(known ? bytes.size() : kSizeUnknown);
    if (!writer) return std::unexpected(writer.error());
    BASALT_CHECK_OK(fill(**writer, bytes));
    auto ref = seal(**writer);
    if (ref) {
      files->add_live(*ref);
      (*writer)->recorded();
    }
    return ref;
  }
  Result<std::vector<uint8_t>> read(const BlobRef& ref, uint64_t offset, uint32_t length) {
    Waited<ReadBlob> request(ref, offset, length);
    blobs->read(request);
    EXPECT_FALSE(request.done) << "never from inside the call";
    EXPECT_TRUE(core->turn_until([&] { return request.done; }));
    if (!request.result) return std::unexpected(request.result.error());
    Bytes data = request.result->data;
    return std::vector<uint8_t>(data.begin(), data.end());
  }
  void expect_whole(const BlobRef& ref, const std::vector<uint8_t>& want) {
    for (uint64_t at = 0; at < want.size(); at += kBlobReadBytesMax) {
      auto length = static_cast<uint32_t>(std::min<uint64_t>(kBlobReadBytesMax, want.size() - at));
      auto got = read(ref, at, length);
      ASSERT_TRUE(got) << got.error().detail;
      ASSERT_TRUE(std::equal(got->begin(), got->end(), want.begin() + static_cast<ptrdiff_t>(at)))
          << at;
    }
  }
  // Its lead and its file together are `want`, and the file's part begins with a page.
  void expect_range(const FileRange& range, Bytes want) {
    ASSERT_EQ(range.size(), want.size());
    EXPECT_EQ(range.offset % kBlockBytes, 0u);
    EXPECT_LT(range.lead.size(), kBlockBytes);
    std::vector<uint8_t> got(range.lead.begin(), range.lead.end());
    got.resize(want.size());
    ASSERT_EQ(::pread(range.fd, got.data() + range.lead.size(), range.length,
                      static_cast<off_t>(range.offset)),
              static_cast<ssize_t>(range.length));
    EXPECT_TRUE(std::equal(got.begin(), got.end(), want.begin()));
  }
  std::string path(const BlobRef& ref) {
    FileKind kind = ref.kind == static_cast<uint8_t>(BlobKind::kFile)   ? FileKind::kOwn
                    : ref.kind == static_cast<uint8_t>(BlobKind::kBulk) ? FileKind::kBulk
                                                                        : FileKind::kLog;
    return directory.path() + "/" + LocalFiles::path_of(kind, ref.file);
  }
  size_t own_files() {
    size_t count = 0;
    for (auto& entry : std::filesystem::recursive_directory_iterator(directory.path() + "/blob")) {
      std::error_code gone;  // unlinked under us
      count += entry.is_regular_file(gone) && entry.file_size(gone) > 0 && !gone;
    }
    return count;
  }
  void drop_cache(const BlobRef& ref) {
    int fd = ::open(path(ref).c_str(), O_RDONLY | O_CLOEXEC);
    ASSERT_GE(fd, 0);
    ::fsync(fd);
    ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    ::close(fd);
  }

  TemporaryDirectory directory;
  EngineOptions options;
  std::unique_ptr<Files> files;
  std::unique_ptr<TestCore> core;
  std::unique_ptr<BlobStore> blobs;
};

TEST_P(BlobTest, ManySizesKnownAndUnknown) {
  for (size_t size :
       {size_t{1}, size_t{4095}, size_t{4096}, size_t{65536}, size_t{65537}, size_t{131073},
        size_t{262144}, size_t{262145}, size_t{1048576}, size_t{1048577}, size_t{3000000},
        size_t{4194303}, size_t{4194304}, size_t{9000001}}) {
    for (bool known : {true, false}) {
      SCOPED_TRACE(testing::Message() << size << (known ? "" : " unknown"));
      auto data = pattern(size, size);
      auto ref = store(data, known);
      ASSERT_TRUE(ref) << ref.error().detail;
      EXPECT_EQ(ref->length, size);
      EXPECT_EQ(ref->kind,
                static_cast<uint8_t>(known && size < options.own_file_bytes_min ? BlobKind::kBulk
                                                                                : BlobKind::kFile));
      expect_whole(*ref, data);
      drop_cache(*ref);
      expect_whole(*ref, data);
    }
  }
  EXPECT_EQ(core->buffers.bytes_in_use(), 0u);
  EXPECT_EQ(core->stats.corrupt_reads, 0u);
}

TEST_P(BlobTest, AnyRange) {
  auto data = pattern(1'500'000, 5);
  auto ref = store(data);
  ASSERT_TRUE(ref);
  uint64_t state = 1;
  for (int i = 0; i < 300; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    uint64_t offset = (state >> 20) % data.size();
    auto length = static_cast<uint32_t>(
        std::min<uint64_t>(1 + (state >> 40) % kBlobReadBytesMax, data.size() - offset));
    if (i % 50 == 0) drop_cache(*ref);
    auto got = read(*ref, offset, length);
    ASSERT_TRUE(got) << got.error().detail;
    ASSERT_TRUE(
        std::equal(got->begin(), got->end(), data.begin() + static_cast<ptrdiff_t>(offset)));
  }
  EXPECT_EQ(read(*ref, data.size(), 1).error().code, Code::kInvalid);
  EXPECT_EQ(read(*ref, data.size() - 1, 2).error().code, Code::kInvalid);
  EXPECT_EQ(read(*ref, 0, 0).error().code, Code::kInvalid);
  EXPECT_EQ(read(*ref, 0, kBlobReadBytesMax + 1).error().code, Code::kInvalid);
  EXPECT_EQ(read(BlobRef{}, 0, 1).error().code, Code::kInvalid);
}

TEST_P(BlobTest, DamageIsFoundWhereverItIs) {
  for (size_t size : {size_t{200'000}, size_t{5'000'000}}) {
    auto data = pattern(size, size);
    auto ref = store(data);
    ASSERT_TRUE(ref);
    for (uint64_t at : {uint64_t{0}, uint64_t{70'000}, uint64_t{size - 1}}) {
      drop_cache(*ref);
      flip_bit(path(*ref), ref->offset + at);
      auto got = read(*ref, at, 1);
      ASSERT_FALSE(got);
      EXPECT_EQ(got.error().code, Code::kCorrupt);
      // The other chunks are good.
      EXPECT_TRUE(read(*ref, at < 65536 ? 140'000 : 0, 100));
      flip_bit(path(*ref), ref->offset + at);
      EXPECT_TRUE(read(*ref, at, 1));
    }
    // The table, as seen by a core that has not read it yet.
    blobs.reset();
    make();
    uint64_t table = ref->offset + round_up(size, 4096);
    drop_cache(*ref);
    flip_bit(path(*ref), table + 4);
    EXPECT_EQ(read(*ref, 0, 100).error().code, Code::kCorrupt);
    flip_bit(path(*ref), table + 4);
    EXPECT_TRUE(read(*ref, 0, 100));
  }
  EXPECT_GE(core->stats.corrupt_reads, 8u);
  // The right bytes under a wrong name: another generation.
  auto ref = store(pattern(150'000, 9));
  BlobRef other = *ref;
  other.generation ^= 1;
  EXPECT_EQ(read(other, 0, 10).error().code, Code::kCorrupt);
  // A file cut short, and one that is missing.
  ref = store(pattern(5'000'000, 9));
  std::filesystem::resize_file(path(*ref), 1 << 20);
  EXPECT_EQ(read(*ref, 2 << 20, 10).error().code, Code::kCorrupt);
  other = *ref;
  other.file = 0x7fffffff;
  EXPECT_EQ(read(other, 0, 10).error().code, Code::kCorrupt);
}

TEST_P(BlobTest, LogBodiesAreReadTheSameWay) {
  auto lane = make_lane(*files, 0, *core->io, core->run_queue, core->stats);
  auto mutations = pattern(77, 1);
  for (size_t size :
       {size_t{513}, size_t{65536}, size_t{65537}, size_t{100'000}, kInlineBodyBytesMax}) {
    auto body = pattern(size, size);
    Waited<Append> append;
    append.mutations = mutations;
    append.body = body;
    lane->append(append);
    ASSERT_TRUE(core->turn_until([&] { return append.done; }));
    ASSERT_TRUE(append.result);
    expect_whole(append.body_ref, body);
    auto tail = read(append.body_ref, size - 3, 3);
    ASSERT_TRUE(tail);
    EXPECT_TRUE(std::equal(tail->begin(), tail->end(), body.end() - 3));
    const auto range = blobs->file_range(append.body_ref, 0, size);
    if (size < kFileRangeBytesMin) EXPECT_FALSE(range) << "too small";
    if (range) {  // the kernel has cachestat
      expect_range(*range, body);
    }
    drop_cache(append.body_ref);
    EXPECT_FALSE(blobs->file_range(append.body_ref, 0, size)) << "not resident any more";
    flip_bit(path(append.body_ref), append.body_ref.offset + size / 2);
    EXPECT_EQ(read(append.body_ref, 0, static_cast<uint32_t>(size)).error().code, Code::kCorrupt);
    EXPECT_FALSE(blobs->file_range(append.body_ref, 0, size)) << "resident, and damaged";
  }
  lane.reset();
}

TEST_P(BlobTest, ManyWritersAtATimeShareABulkSegment) {
  std::vector<std::vector<uint8_t>> data;
  std::vector<std::unique_ptr<BlobWriter>> writers;
  for (size_t i = 0; i < 12; ++i) {
    data.push_back(pattern(300'000 + i * 100'000, i));
    auto writer = blobs->create(data.back().size());
    ASSERT_TRUE(writer);
    writers.push_back(std::move(*writer));
  }
  std::deque<Waited<SealBlob>> seals;
  for (size_t i = 0; i < writers.size(); ++i) ASSERT_TRUE(fill(*writers[i], data[i]));
  for (auto& writer : writers) writer->seal(seals.emplace_back());
  ASSERT_TRUE(core->turn_until(
      [&] { return std::all_of(seals.begin(), seals.end(), [](auto& s) { return s.done; }); }));
  for (size_t i = 0; i < writers.size(); ++i) {
    ASSERT_TRUE(seals[i].result);
    expect_whole(seals[i].result->ref, data[i]);
    files->add_live(seals[i].result->ref);
    writers[i]->recorded();
  }
}

// What a caller still reads (a hash station) stays in place after it was written, counts as under
// way, and goes when the caller says so.
TEST_P(BlobTest, KeptBytesStayInPlace) {
  const auto data = pattern(9'000'000, 5);
  auto writer = blobs->create(data.size());
  ASSERT_TRUE(writer);
  (*writer)->keep_from(0);
  std::vector<Bytes> places;
  size_t given = 0;
  for (MutableBytes room = (*writer)->room(); !room.empty(); room = (*writer)->room()) {
    std::memcpy(room.data(), data.data() + given, room.size());
    places.push_back(room);
    given += room.size();
    (*writer)->advance(room.size());
  }
  EXPECT_EQ(given, kBlobWriteBytesInFlightMax);
  Waited<WriterReady> ready;
  (*writer)->wait(ready);
  ASSERT_TRUE(core->turn_until([&] { return core->io->in_flight() == 0; }));
  core->run_queue.run();
  EXPECT_FALSE(ready.done);
  size_t at = 0;
  for (Bytes place : places) {
    EXPECT_TRUE(std::equal(place.begin(), place.end(), data.begin() + static_cast<long>(at)));
    at += place.size();
  }
  (*writer)->keep_from(places.front().size());
  ASSERT_TRUE(core->turn_until([&] { return ready.done; }));
  EXPECT_TRUE(ready.result);
  EXPECT_EQ((*writer)->room().data(), places.front().data());
  (*writer)->keep_from(UINT64_MAX);
  ASSERT_TRUE(fill(**writer, Bytes(data).subspan(given)));
  (*writer)->keep_from(given);  // a seal does not need what is kept
  auto ref = seal(**writer);
  ASSERT_TRUE(ref);
  expect_whole(*ref, data);
  files->add_live(*ref);
  (*writer)->recorded();
}

TEST_P(BlobTest, AbandonedAndDiscardedWritersGiveTheirSpaceBack) {
  auto data = pattern(9'000'000, 3);
  {
    auto unsealed = blobs->create(data.size());
    ASSERT_TRUE(fill(**unsealed, Bytes(data).first(5'000'000)));
    auto sealed = blobs->create(data.size());
    ASSERT_TRUE(fill(**sealed, data));
    ASSERT_TRUE(seal(**sealed));
    (*sealed)->discard();
    auto forgotten = blobs->create(data.size());
    ASSERT_TRUE(fill(**forgotten, data));
    ASSERT_TRUE(seal(**forgotten));
    auto untouched = blobs->create(kSizeUnknown);
    ASSERT_TRUE(untouched);
  }
  EXPECT_TRUE(core->turn_until([&] { return own_files() == 0; })) << own_files();
  EXPECT_EQ(core->buffers.bytes_in_use(), 0u);
}

TEST_P(BlobTest, EmptiedBulkSegmentsComeBack) {
  std::vector<BlobRef> refs;
  for (int i = 0; i < 30; ++i) {  // 60 MB in segments of 8 MiB
    auto ref = store(pattern(2'000'000, static_cast<uint64_t>(i)));
    ASSERT_TRUE(ref) << ref.error().detail;
    refs.push_back(*ref);
  }
  EXPECT_GE(files->space_use().bulk_segments, 8u);
  EXPECT_EQ(files->space_use().segment_live_bytes, 60'000'000u);
  auto guard = blobs->guard();
  files->release(refs);
  core->turn_for(std::chrono::milliseconds(250));
  EXPECT_GE(files->space_use().bulk_segments, 8u);
  guard.reset();
  EXPECT_TRUE(core->turn_until([&] { return files->space_use().bulk_segments <= 4; }));
  EXPECT_EQ(files->space_use().segment_live_bytes, 0u);
  // Old references into a recycled segment never read as something else.
  for (int i = 0; i < 12; ++i) ASSERT_TRUE(store(pattern(2'000'000, 100)));
  size_t gone = 0;
  for (size_t i = 0; i < refs.size(); ++i) {
    auto got = read(refs[i], 0, 100);
    auto was = pattern(100, i);
    if (got) EXPECT_EQ(*got, was);  // not written over yet
    gone += !got;
  }
  EXPECT_GE(gone, 8u);
}

TEST_P(BlobTest, OwnFileIsUnlinkedAfterTheLastReader) {
  auto data = pattern(6'000'000, 1);
  auto ref = store(data);
  ASSERT_TRUE(ref);
  auto guard = blobs->guard();
  files->release(std::array{*ref});
  core->turn_for(std::chrono::milliseconds(250));
  expect_whole(*ref, data);
  guard.reset();
  EXPECT_TRUE(core->turn_until([&] { return own_files() == 0; }));
}

TEST_P(BlobTest, FileRangeOnlyWhenResidentAndVerified) {
  auto data = pattern(3'000'000, 8);
  auto ref = store(data);
  ASSERT_TRUE(ref);
  auto guard = blobs->guard();
  drop_cache(*ref);
  EXPECT_FALSE(blobs->file_range(*ref, 0, 500'000));
  ASSERT_TRUE(read(*ref, 0, 600'000));
  ASSERT_TRUE(read(*ref, 0, 600'000));  // the second time through the page cache
  auto range = blobs->file_range(*ref, 1000, 500'000);
  if (range) {  // the kernel has cachestat
    expect_range(*range, Bytes(data).subspan(1000, 500'000));
    EXPECT_TRUE(blobs->still_there(*range, range->offset, range->length));
    drop_cache(*ref);
    EXPECT_FALSE(blobs->still_there(*range, range->offset + 100'000, 50'000));
    drop_cache(*ref);
    EXPECT_FALSE(blobs->file_range(*ref, 1000, 500'000)) << "not resident any more";
  }
  EXPECT_FALSE(blobs->file_range(*ref, 1'000'000, 500'000)) << "never read";
  EXPECT_FALSE(blobs->file_range(*ref, 2'900'000, 500'000)) << "out of range";
}

// The failed read has brought the damaged bytes into the page cache, and they were verified once:
// nobody may take them from there for it.
TEST_P(BlobTest, DamageThatWasReadInIsNeverAFileRange) {
  for (const size_t size : {size_t{300'000}, size_t{5'000'000}}) {
    const auto data = pattern(size, 9);
    auto ref = store(data);
    ASSERT_TRUE(ref);
    auto guard = blobs->guard();
    drop_cache(*ref);
    ASSERT_TRUE(read(*ref, 0, 200'000));
    ASSERT_TRUE(read(*ref, 0, 200'000));
    drop_cache(*ref);
    flip_bit(path(*ref), ref->offset + 100'000);
    drop_cache(*ref);
    for (int i = 0; i < 4; ++i) {  // past the page cache, through it, from it
      EXPECT_FALSE(blobs->file_range(*ref, 0, 200'000));
      EXPECT_EQ(read(*ref, 0, 200'000).error().code, Code::kCorrupt);
    }
    flip_bit(path(*ref), ref->offset + 100'000);
    drop_cache(*ref);
    EXPECT_TRUE(read(*ref, 0, 200'000));
  }
}

// The first reader of cold bytes leaves the page cache alone, the second one fills it.
TEST_P(BlobTest, OnlyWhatIsReadAgainComesIntoThePageCache) {
  auto lane = make_lane(*files, 0, *core->io, core->run_queue, core->stats);
  for (const size_t size : {size_t{4096}, size_t{30'000}, size_t{100'000}, size_t{300'000}}) {
    SCOPED_TRACE(size);
    const auto data = pattern(size, size);
    BlobRef ref;
    if (size <= kInlineBodyBytesMax) {
      Waited<Append> append;
      append.mutations = Bytes(data).first(77);
      append.body = data;
      lane->append(append);
      ASSERT_TRUE(core->turn_until([&] { return append.done; }));
      ASSERT_TRUE(append.result);
      ref = append.body_ref;
    } else {
      auto stored = store(data);
      ASSERT_TRUE(stored);
      ref = *stored;
    }
    drop_cache(ref);
    UniqueFd fd(::open(path(ref).c_str(), O_RDONLY | O_CLOEXEC));
    const auto resident = [&] {
      return system_disk().resident_pages(fd.get(), ref.offset, ref.length);
    };
    if (resident() == -ENOSYS) GTEST_SKIP() << "no cachestat";
    ASSERT_EQ(resident(), 0);
    expect_whole(ref, data);
    EXPECT_EQ(resident(), 0) << "read once";
    expect_whole(ref, data);
    EXPECT_GT(resident(), 0) << "read twice";
    // Forgotten: after the next eviction it is new again.
    drop_cache(ref);
    expect_whole(ref, data);
    EXPECT_EQ(resident(), 0);
  }
  lane.reset();
}

// A copied file need not end with a whole block, as O_DIRECT likes it.
TEST_P(BlobTest, AFileMayEndWithinABlock) {
  for (const size_t size : {size_t{40'000}, size_t{5'000'001}}) {
    const auto data = pattern(size, size);
    auto ref = store(data, false);  // a file of its own
    ASSERT_TRUE(ref);
    const uint64_t table = chunk_table_bytes(size);
    std::filesystem::resize_file(
        path(*ref), table == 0 ? size : chunk_table_offset(BlobKind::kFile, size) + table);
    blobs.reset();
    make();
    drop_cache(*ref);
    expect_whole(*ref, data);
    std::filesystem::resize_file(path(*ref), 100);
    drop_cache(*ref);
    EXPECT_EQ(read(*ref, 0, 10).error().code, Code::kCorrupt);
  }
}

// What was read twice is sent from the page cache afterwards, window by window: nearly all of it,
// not the few windows in which no chunk shares its place with another.
TEST_P(BlobTest, LargeBlobsStayVerified) {
  constexpr uint64_t kWindow = kBlobReadBytesMax;
  constexpr uint64_t kWindows = (24u << 20) / kWindow;
  auto ref = store(pattern(kWindows * kWindow, 3));
  ASSERT_TRUE(ref);
  auto guard = blobs->guard();
  for (int time = 0; time < 2; ++time) {
    for (uint64_t i = 0; i < kWindows; ++i) ASSERT_TRUE(read(*ref, i * kWindow, kWindow));
  }
  if (!blobs->file_range(*ref, (kWindows - 1) * kWindow, kWindow))
    GTEST_SKIP() << "no cachestat, or no memory to spare";
  uint64_t sent = 0;
  for (uint64_t i = 0; i < kWindows; ++i)
    sent += blobs->file_range(*ref, i * kWindow, kWindow).has_value();
  // The kernel may take pages back meanwhile.
  EXPECT_GE(sent, kWindows / 2);
}

TEST_P(BlobTest, LimitsAndRefusals) {
  EXPECT_EQ(blobs->create(0).error().code, Code::kInvalid);
  EXPECT_EQ(blobs->create(kBlobBytesMax + 1).error().code, Code::kTooLarge);
  {
    auto writer = blobs->create(300'000);
    ASSERT_TRUE(fill(**writer, pattern(100'000, 1)));
    EXPECT_EQ(seal(**writer).error().code, Code::kInvalid) << "too short";
  }
  {
    auto writer = blobs->create(300'000);
    ASSERT_TRUE(fill(**writer, pattern(300'000, 1)));
    EXPECT_TRUE((*writer)->room().empty()) << "no more than was announced";
    Waited<WriterReady> ready;
    (*writer)->wait(ready);
    EXPECT_TRUE(core->turn_until([&] { return ready.done; }));
    EXPECT_TRUE(seal(**writer));
  }
  {
    // Not more than the bound in flight, whatever the caller offers.
    auto writer = blobs->create(64 << 20);
    size_t taken = 0;
    for (MutableBytes room = (*writer)->room(); !room.empty(); room = (*writer)->room()) {
      (*writer)->advance(room.size());
      taken += room.size();
    }
    EXPECT_EQ(taken, kBlobWriteBytesInFlightMax);
  }
  files->poison("test");
  EXPECT_EQ(blobs->create(300'000).error().code, Code::kReadOnly);
}

TEST_P(BlobTest, AnExhaustedPoolSlowsDownAndNeverHangs) {
  blobs.reset();
  BufferPool tiny({.bytes_max = 5u << 19, .kept_bytes_max = 0});
  blobs = make_blob_store(*files, 0, options, *core->io, core->run_queue, tiny, core->stats);
  auto data = pattern(10'000'000, 4);
  auto one = blobs->create(data.size());
  auto two = blobs->create(data.size());
  ASSERT_TRUE(one && two);
  auto three = blobs->create(data.size());
  ASSERT_FALSE(three);
  EXPECT_EQ(three.error().code, Code::kBusy);
  ASSERT_TRUE(fill(**one, data));
  ASSERT_TRUE(fill(**two, data));
  EXPECT_TRUE(seal(**one));
  EXPECT_TRUE(seal(**two));
  one->reset();
  two->reset();
  blobs.reset();
  EXPECT_EQ(tiny.bytes_in_use(), 0u);
}

// The caller waits for the seal and keeps the body's bytes until then, so nothing would come back.
TEST_P(BlobTest, ASealNeedsNoRoomInTheBufferPool) {
  blobs.reset();
  BufferPool tiny({.bytes_max = 4u << 20, .kept_bytes_max = 0});
  blobs = make_blob_store(*files, 0, options, *core->io, core->run_queue, tiny, core->stats);
  const auto data = pattern(1'000'000, 4);
  auto writer = blobs->create(data.size());
  ASSERT_TRUE(writer);
  (*writer)->keep_from(0);
  ASSERT_TRUE(fill(**writer, data));
  std::vector<Buffer> others;
  while (Buffer one = tiny.take(1u << 20)) others.push_back(std::move(one));
  EXPECT_FALSE(tiny.take(1));
  auto ref = seal(**writer);
  ASSERT_TRUE(ref);
  others.clear();
  writer->reset();
  expect_whole(*ref, data);
  blobs.reset();
  EXPECT_EQ(tiny.bytes_in_use(), 0u);
}

TEST_P(BlobTest, AFullDiskIsAnAnswerAndNotAnEnd) {
  // The file size limit stands in for the disk: EFBIG comes where ENOSPC would. Bulk segments and
  // the log are small enough to stay under it.
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit old{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old), 0);
  rlimit low = old;
  low.rlim_cur = 20u << 20;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &low), 0);
  auto data = pattern(30'000'000, 4);
  auto known = store(data);
  auto unknown = store(data, false);
  ::setrlimit(RLIMIT_FSIZE, &old);
  ASSERT_FALSE(known);
  EXPECT_EQ(known.error().code, Code::kNoSpace);
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code, Code::kNoSpace);
  EXPECT_TRUE(files->healthy());
  EXPECT_TRUE(core->turn_until([&] { return own_files() == 0; }));
  EXPECT_TRUE(store(data));
}

INSTANTIATE_TEST_SUITE_P(Backends, BlobTest, ::testing::Values(false, true),
                         [](const auto& info) { return info.param ? "threads" : "io_uring"; });

}  // namespace
}  // namespace basalt::storage
