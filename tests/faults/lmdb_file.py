"""Reads an index file (LMDB 0.9, 64 bit, no duplicates; storage/lmdb_format.h) that nobody writes: which rows there are, and on which pages.

Only for sound files: nothing is checked."""
import pathlib
import struct

META_BYTES_AT, PAGE_HEADER, NODE_HEADER = 16, 16, 8
BRANCH, LEAF = 1, 2
BIG_DATA, SUB_TREE = 1, 2
NO_PAGE = (1 << 64) - 1


class Tree:
    def __init__(self, data):
        self.page_bytes, _, _, self.branches, self.leaves, self.overflows, self.entries, self.root = struct.unpack("<IHHQQQQQ", data)


class IndexFile:
    def __init__(self, path):
        self.data = pathlib.Path(path).read_bytes()
        metas = [self._meta(0), self._meta(struct.unpack_from("<I", self.data, META_BYTES_AT + 24)[0])]
        self.transaction, self.last_page, self.main = max(metas, key=lambda meta: meta[0])
        self.page_bytes = struct.unpack_from("<I", self.data, META_BYTES_AT + 24)[0]
        self.tables = {}  # name -> (Tree, pages that lead to it)
        for key, value, pages in self._walk(self.main.root, ()):
            self.tables[key.decode()] = Tree(value), pages

    def _meta(self, at):
        main = Tree(self.data[at + META_BYTES_AT + 72:at + META_BYTES_AT + 120])
        last_page, transaction = struct.unpack_from("<QQ", self.data, at + META_BYTES_AT + 120)
        return transaction, last_page, main

    def rows(self, table):
        """(key, value, the pages that a look-up of it reads, from the main tree's root to the leaf and those of a long value)."""
        tree, above = self.tables[table]
        yield from self._walk(tree.root, above)

    def _walk(self, page, above):
        if page == NO_PAGE:
            return
        at, path = page * self.page_bytes, (*above, page)
        flags, lower = struct.unpack_from("<HH", self.data, at + 10)
        for offset in struct.unpack_from(f"<{(lower - PAGE_HEADER) // 2}H", self.data, at + PAGE_HEADER):
            low, high, node_flags, key_bytes = struct.unpack_from("<HHHH", self.data, at + offset)
            begin = at + offset + NODE_HEADER
            if flags & BRANCH:
                yield from self._walk(low | high << 16 | node_flags << 32, path)
                continue
            key, length, end = self.data[begin:begin + key_bytes], low | high << 16, begin + key_bytes
            if node_flags & BIG_DATA:
                first = struct.unpack_from("<Q", self.data, end)[0]
                start = first * self.page_bytes + PAGE_HEADER
                count = (PAGE_HEADER - 1 + length) // self.page_bytes + 1
                yield key, self.data[start:start + length], (*path, *range(first, first + count))
            else:
                yield key, self.data[end:end + length], path

    def used_bytes(self):
        """Of the pages that hold something."""
        return sum(tree.branches + tree.leaves + tree.overflows for tree, _ in self.tables.values()) * self.page_bytes

    def live_bytes(self):
        """Of the keys and values of all rows."""
        return sum(len(key) + len(value) for table in self.tables for key, value, _ in self.rows(table))
