// Preloaded into a server under test (faults/cold.py): whenever a byte comes by the FIFO
// $COLD_MAPS/ask, its index files are unmapped page by page, and their number goes to
// $COLD_MAPS/done. The mappings stay and the files do not change; the next access to a page is a
// fault. No one outside can do that: process_madvise(2) leaves pages alone that are mapped twice,
// as those of an index are, by liblmdb and by the server.
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

namespace {

int ask = -1, done = -1;

int unmap_pages() {
  int files = 0;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    unsigned long begin = 0, end = 0;
    if (!line.ends_with("/data.mdb") || std::sscanf(line.c_str(), "%lx-%lx", &begin, &end) != 2)
      continue;
    if (::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED) == 0) ++files;
  }
  return files;
}

void* serve(void*) {
  char byte;
  while (::read(ask, &byte, 1) == 1) {
    const std::string answer = std::to_string(unmap_pages()) + "\n";
    if (::write(done, answer.data(), answer.size()) < 0) break;
  }
  return nullptr;
}

__attribute__((constructor)) void begin() {
  const char* folder = std::getenv("COLD_MAPS");
  if (folder == nullptr) return;
  const std::string in(folder);
  // Both ways: an end without a partner is no end of the file.
  ask = ::open((in + "/ask").c_str(), O_RDWR | O_CLOEXEC);
  done = ::open((in + "/done").c_str(), O_RDWR | O_CLOEXEC);
  if (ask < 0 || done < 0) return;
  // The server's signals are for its own threads.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  if (pthread_create(&thread, nullptr, serve, nullptr) == 0) pthread_detach(thread);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

}  // namespace
