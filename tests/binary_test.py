#!/usr/bin/env python3
"""What the release binary (WEIR_BIN) is: small, hardened, and in need of few libraries."""
import os
import re
import subprocess
import tempfile
import unittest

BINARY = os.environ.get("WEIR_BIN", "build/weir")
STRIPPED_BYTES_MAX = 5_000_000
# Each has its reason in ARCHITECTURE.
LIBRARIES = {"libc", "libm", "libpthread", "libisal", "liblmdb", "libxxhash", "libzstd", "liblz4",
             "libcrypto", "libssl", "ld-linux-x86-64"}


def readelf(*flags):
    return subprocess.run(["readelf", "-W", *flags, BINARY], check=True, capture_output=True,
                          text=True).stdout


class Binary(unittest.TestCase):
    def test_it_is_small_when_stripped(self):
        with tempfile.NamedTemporaryFile() as stripped:
            subprocess.run(["strip", "-o", stripped.name, BINARY], check=True)
            self.assertLessEqual(os.path.getsize(stripped.name), STRIPPED_BYTES_MAX)

    def test_its_addresses_are_random_and_its_tables_read_only(self):
        self.assertRegex(readelf("-d"), r"FLAGS_1.*\bNOW\b.*\bPIE\b")
        self.assertIn("GNU_RELRO", readelf("-l"))
        self.assertRegex(readelf("-l"), r"GNU_STACK\s.*\bRW\b")

    def test_its_buffers_and_stack_are_guarded(self):
        symbols = readelf("--dyn-syms")
        self.assertRegex(symbols, r"__stack_chk_fail")
        self.assertRegex(symbols, r"__\w+_chk\b")

    def test_it_needs_few_libraries_and_no_path_to_them(self):
        dynamic = readelf("-d")
        needed = set(re.findall(r"NEEDED.*\[([\w-]+)\.so", dynamic))
        self.assertLessEqual(needed, LIBRARIES)
        self.assertNotRegex(dynamic, r"RPATH|RUNPATH")

    def test_it_says_its_version(self):
        said = subprocess.run([BINARY, "--version"], check=True, capture_output=True, text=True)
        self.assertRegex(said.stdout, r"^weir \d+\.\d+\.\d+")


if __name__ == "__main__":
    unittest.main()
