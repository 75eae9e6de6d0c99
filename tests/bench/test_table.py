"""The arithmetic and the words of the table: `scripts/bench --selftest`."""

import unittest

import peers
import profiling
import table
from table import Goal, Row

MORE = Row("rate", "rate", goal=Goal(5.0, 6.0, {"slow": 2}), nic=Goal(3.0))
LESS = Row("time", "time", more=False, goal=Goal(100, 50))


def samples(**rows):
    return {name: {key: list(values) for key, values in of.items()} for name, of in rows.items()}


class Table(unittest.TestCase):
    def test_a_cell_is_a_median_with_its_spread(self):
        self.assertEqual(table.cell([3.0, 1.0, 2.0]), "2.00 [1.00–3.00]")
        self.assertEqual(table.cell([123.4]), "123")
        self.assertEqual(table.cell([12.34]), "12.3")
        self.assertEqual(table.cell([]), "–")
        self.assertEqual(table.cell(None), "–")

    def test_a_percentile_is_one_of_the_values(self):
        self.assertEqual(table.percentile(list(range(1, 101)), 50), 51)
        self.assertEqual(table.percentile(list(range(1, 101)), 99), 100)
        self.assertEqual(table.percentile([7], 99), 7)
        with self.assertRaises(ValueError):
            table.percentile([], 50)

    def test_a_ratio_says_how_many_times_as_good(self):
        of = samples(ours={"rate": [4], "time": [10]}, theirs={"rate": [2], "time": [40]}, silent={})
        self.assertEqual(table.ratio(MORE, of, "ours", "theirs"), 2)
        self.assertEqual(table.ratio(LESS, of, "ours", "theirs"), 4)
        self.assertIsNone(table.ratio(MORE, of, "ours", "silent"))
        self.assertIsNone(table.ratio(MORE, samples(ours={"rate": [4]}, theirs={"rate": [0]}), "ours", "theirs"))

    def test_a_goal_is_met_by_itself_or_against_a_peer(self):
        def met(ours, slow=None, row=MORE, underlay="veth"):
            of = samples(ours={row.key: [ours]}, **({"slow": {row.key: [slow]}} if slow else {}))
            return table.verdict(row, of, "ours", underlay)[1]

        self.assertEqual(met(4.9), "no")
        self.assertEqual(met(5.0), "yes")
        self.assertEqual(met(6.0), "stretch")
        self.assertEqual(met(4.0, slow=2.0), "by ratio")
        self.assertEqual(met(3.9, slow=2.0), "no")
        self.assertEqual(met(3.1, underlay="nic"), "yes")
        self.assertEqual([met(t, row=LESS) for t in (101, 100, 50)], ["no", "yes", "stretch"])
        self.assertEqual(met(1, row=LESS, underlay="nic"), "")

    def test_a_goal_names_only_peers_that_ran(self):
        alone, beside = samples(ours={}, slow={}), samples(ours={}, slow={"rate": [1]})
        self.assertEqual(table.verdict(MORE, alone, "ours", "veth"), ("≥ 5", ""))
        self.assertEqual(table.verdict(MORE, beside, "ours", "veth"), ("≥ 5, or 2× slow", ""))

    def test_a_goal_goes_by_the_first_peer_that_ran(self):
        row = Row("rate", "rate", goal=Goal(5, None, {"fast": 2, "slow": 6}))
        of = samples(ours={"rate": [4]}, slow={"rate": [0.1]}, fast={"rate": [3]})
        self.assertEqual(table.verdict(row, of, "ours", "veth"), ("≥ 5, or 2× fast", "no"))
        del of["fast"]
        self.assertEqual(table.verdict(row, of, "ours", "veth"), ("≥ 5, or 6× slow", "by ratio"))

    def test_the_table_is_rectangular_and_has_a_line_for_each_row_that_was_measured(self):
        of = samples(postern={"tcp_1_up": [4, 5, 6], "rtt_p50": [200]}, gotatun={"tcp_1_up": [1], "memory_laptop": [60]})
        lines = table.render(of, "postern", "veth").splitlines()
        self.assertEqual(len(lines), 2 + 3)
        self.assertEqual({line.count("|") for line in lines}, {7})
        self.assertIn("5.00 [4.00–6.00]", lines[2])
        self.assertIn("| 5.00 |", lines[2])
        self.assertNotIn("goal", table.render(samples(gotatun={"tcp_1_up": [1]}), "postern", "veth"))

    def test_every_row_has_a_name_of_its_own(self):
        self.assertEqual(len({row.key for row in table.ROWS}), len(table.ROWS))
        self.assertEqual(len({row.label for row in table.ROWS}), len(table.ROWS))


class Profiling(unittest.TestCase):
    def test_every_sample_is_of_one_kind(self):
        for place, kind in {
            ("swapper", "[kernel.kallsyms]", "haltpoll_cpuidle_enter"): profiling.IDLE,
            ("swapper", "[kernel.kallsyms]", "veth_xmit"): profiling.KERNEL_NET,
            ("iperf3", "[kernel.kallsyms]", "tcp_sendmsg"): profiling.LOAD,
            ("postern", "postern", "ring_core_0_17_14__chacha20_poly1305_seal_avx2"): profiling.AEAD,
            ("postern", "libc.so.6", "__memmove_avx_unaligned_erms"): profiling.COPY,
            ("postern", "postern", "postern_io::split::split"): profiling.OWN,
            ("postern", "[kernel.kallsyms]", "rep_movs_alternative"): profiling.KERNEL_COPY,
            ("postern", "[kernel.kallsyms]", "try_to_wake_up"): profiling.KERNEL_WAKE,
            ("postern", "[kernel.kallsyms]", "kmem_cache_free"): profiling.KERNEL_MEMORY,
            ("postern", "[kernel.kallsyms]", "tun_get_user"): profiling.KERNEL_NET,
        }.items():
            self.assertEqual(profiling.kind_of(*place), kind, place)


class Peers(unittest.TestCase):
    def test_a_peer_from_elsewhere(self):
        both = peers.parse("x=sh -f {if}::env {if}")
        self.assertEqual((both.name, both.laptop, both.gateway), ("x", "sh -f {if}", "env {if}"))
        self.assertEqual(peers.parse("x=sh {if}").gateway, "sh {if}")
        for bad in ("sh {if}", "x=sh", "x=sh {if}::sh", "x=no-such-program {if}", "a b=sh {if}"):
            with self.assertRaises(ValueError, msg=bad):
                peers.parse(bad)

    def test_versions(self):
        self.assertEqual(peers.first_number("OpenSSH_9.2p1 Debian-2"), "9.2p1")
        self.assertEqual(peers.first_number("wireguard-go v0.0.20250522\n\nUserspace"), "0.0.20250522")
        self.assertEqual(peers.first_number(""), "?")


if __name__ == "__main__":
    unittest.main()
