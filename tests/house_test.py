#!/usr/bin/env python3
"""The tools that judge everything else, judged: what the test runner counts, and that each rule of
tools/tidy.py sees what it forbids."""
import sys
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tools")]
import run  # noqa: E402
import tidy  # noqa: E402


class Counts(unittest.TestCase):
    def counts(self, expected, text):
        self.assertEqual(run.counts_parse(text), expected)

    def test_own_summary(self):
        self.counts((3, 1, 0), "ok a\n3 passed, 1 failed\n")
        self.counts((3, 0, 2), "1 passed, 1 failed\nmore\n3 passed, 0 failed, 2 skipped\n")

    def test_pytest(self):
        self.counts((2, 1, 0), "x\n==== 1 failed, 2 passed in 0.12s ====\n")
        self.counts((2, 1, 3), "\x1b[32m2 passed\x1b[0m, 3 skipped, 1 error in 61.0s (0:01:01)\n")
        self.counts((5, 0, 0), "4 passed, 1 xfailed, 2 warnings in 3.00s\n")

    def test_unittest(self):
        self.counts((5, 0, 0), "Ran 5 tests in 0.001s\n\nOK\n")
        self.counts((2, 2, 1), "Ran 5 tests in 0.1s\n\nFAILED (failures=1, errors=1, skipped=1)\n")

    def test_node(self):
        self.counts((4, 1, 1), "# tests 6\n# pass 4\n# fail 1\n# cancelled 0\n# skipped 1\n")
        self.counts((4, 1, 0), "ℹ tests 5\nℹ pass 4\nℹ fail 0\nℹ cancelled 1\nℹ skipped 0\n")

    def test_maven(self):
        self.counts((5, 2, 1), "[INFO] Tests run: 1, Failures: 0, Errors: 0, Skipped: 0\n"
                               "[ERROR] Tests run: 8, Failures: 1, Errors: 1, Skipped: 1\n")

    def test_go(self):
        self.counts((1, 1, 1), "--- PASS: TestA (0.00s)\n    --- PASS: TestA/b (0.00s)\n"
                               "--- FAIL: TestB (0.00s)\n--- SKIP: TestC (0.00s)\nFAIL\n")
        self.counts((2, 1, 0), "ok  \tx/a\t0.1s\nok  \tx/b\t0.2s\nFAIL\tx/c\t0.1s\nFAIL\n")

    def test_nothing_to_read(self):
        self.counts(None, "hello\nthe 3 passed by\n")

    def test_the_exit_code_never_says_less_than_the_text(self):
        self.assertEqual(run.verdict("3 passed, 0 failed\n", 0, False), (3, 0, 0))
        self.assertEqual(run.verdict("3 passed, 0 failed\n", 1, False), (3, 1, 0))
        self.assertEqual(run.verdict("3 passed, 0 failed\n", -9, True), (3, 1, 0))
        self.assertEqual(run.verdict("hello\n", 0, False), (1, 0, 0))
        self.assertEqual(run.verdict("hello\n", 2, False), (0, 1, 0))

    def test_a_suite_in_which_nothing_ran_fails(self):
        self.assertEqual(run.verdict("0 passed, 0 failed\n", 0, False), (0, 1, 0))


class Rules(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.saved = tidy.ROOT, tidy.BUILD
        tidy.ROOT = Path(self.folder.name)
        tidy.BUILD = tidy.ROOT / "build"

    def tearDown(self):
        tidy.ROOT, tidy.BUILD = self.saved

    def seen(self, rule, **files):
        """What a rule says of files given as path=text, with `__` for a slash and `_DOT_`."""
        tidy.text_of.__defaults__[0].clear()
        paths = []
        for name, text in files.items():
            path = Path(name.replace("__", "/").replace("_DOT_", "."))
            (tidy.ROOT / path).parent.mkdir(parents=True, exist_ok=True)
            (tidy.ROOT / path).write_text(text)
            paths.append(path)
        return [f"{path}:{line}: {wrong}" for path, line, wrong in rule(paths)]

    def test_a_later_layer_is_not_included(self):
        text = '#include "base/a.h"\n#include "core/q.h"\n'
        self.assertEqual(
            self.seen(tidy.rule_layers, src__base__a_DOT_h="", src__core__q_DOT_h="",
                      src__store__s_DOT_c=text, src__shard__s_DOT_c=text),
            ["src/store/s.c:2: store may not include core, a later layer"])

    def test_the_core_and_the_faces_know_no_io(self):
        text = '#include "io/loop.h"\n'
        self.assertEqual(
            self.seen(tidy.rule_layers, src__io__loop_DOT_h="", src__core__q_DOT_c=text,
                      src__face__amqp__a_DOT_c=text, src__shard__s_DOT_c=text),
            ["src/core/q.c:1: core may not include io",
             "src/face/amqp/a.c:1: face may not include io"])

    def test_the_tests_of_the_core_run_on_a_store(self):
        text = '#include "io/sim.h"\n#include "store/log.h"\n'
        self.assertEqual(
            self.seen(tidy.rule_layers, src__io__sim_DOT_h="", src__store__log_DOT_h="",
                      src__core__q_test_DOT_c=text, src__core__q_rig_DOT_h=text,
                      src__core__rig_DOT_c=text),
            ["src/core/rig.c:1: core may not include io",
             "src/core/rig.c:2: core may not include store"])

    def test_faces_do_not_know_each_other(self):
        self.assertEqual(
            self.seen(tidy.rule_layers, src__face__face_DOT_h="", src__face__kafka__k_DOT_h="",
                      src__face__amqp__a_DOT_c='#include "face/kafka/k.h"\n#include "face/face.h"\n',
                      src__face__kafka__k_DOT_c='#include "face/kafka/k.h"\n'),
            ["src/face/amqp/a.c:1: face/amqp may not include face/kafka"])

    def test_includes_are_written_from_src(self):
        wrong = self.seen(tidy.rule_layers, src__core__q_DOT_h="",
                          src__core__q_DOT_c='#include "q.h"\n#include "gen/err.h"\n')
        self.assertEqual(wrong, ['src/core/q.c:1: "q.h" is not a header of src/, written from src/'])

    def test_a_header_that_needs_another_is_seen(self):
        self.assertEqual(len(self.seen(tidy.rule_headers_alone, src__base__a_DOT_h="size_t a;\n",
                                       src__base__b_DOT_h="#include <stddef.h>\nsize_t b;\n")), 1)

    def test_a_test_stands_beside_its_source(self):
        self.assertEqual(
            self.seen(tidy.rule_tests_beside_sources, src__base__a_DOT_c="",
                      src__base__a_test_DOT_c="", src__base__b_test_DOT_c=""),
            ["src/base/b_test.c:1: there is no b.c or b.h beside it"])

    def test_banned_calls_are_seen_in_code_only(self):
        text = ('/* strcpy(a) */\nchar *s = "rand(";\nx = loop->time(1); my_time(2);\n'
                'y = time (NULL);\nstrcpy(a, b);\n')
        self.assertEqual([w.split(":")[1] for w in
                          self.seen(tidy.rule_banned_calls, src__base__a_DOT_c=text)], ["4", "5"])

    def test_leftovers_and_machine_paths_are_seen(self):
        self.assertEqual(len(self.seen(tidy.rule_leftovers, a_DOT_md="x\n" + "TO" + "DO: y\n")), 1)
        self.assertEqual(
            len(self.seen(tidy.rule_no_machine_paths, a_DOT_md="see /ho" + "me/ann/x\n")), 1)

    def test_an_opening_paragraph_is_wanted(self):
        self.assertEqual(
            len(self.seen(tidy.rule_opening_paragraph, a_DOT_c="/* A. */\n", b_DOT_c="int b;\n")), 1)

    def test_format_is_wanted(self):
        (tidy.ROOT / ".clang-format").write_text((HERE.parent / ".clang-format").read_text())
        self.assertEqual(
            self.seen(tidy.rule_format, a_DOT_c="int a;\n", b_DOT_c="int  b;\n"),
            ["b.c:1: differs from clang-format (make format)"])


if __name__ == "__main__":
    unittest.main()
