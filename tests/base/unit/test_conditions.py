"""What a device tells of itself, from made-up trees of proc and sys: a value or "unknown", never good news."""

import struct

import pytest

from edgeloop.errors import DeviceError, TargetError
from edgeloop.runtime.agent import delegates
from edgeloop.runtime.agent.machine import capabilities, conditions, memory
from edgeloop.runtime.agent.profiler import Totals

MIB = 1 << 20


@pytest.fixture
def tree(tmp_path):
    """Writes {path: text} below a root and returns the root."""

    def write(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(tmp_path)

    return write


def cpus(governors, khz):
    """cpufreq of as many CPUs."""
    at = "sys/devices/system/cpu/cpu{}/cpufreq/{}".format
    files = {at(i, "scaling_governor"): f"{name}\n" for i, name in enumerate(governors)}
    return files | {at(i, "scaling_cur_freq"): f"{value}\n" for i, value in enumerate(khz)}


PI = cpus(["ondemand"] * 4, [600000, 600000, 1500000, 600000]) | {
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "82173\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
    "proc/loadavg": "0.52 0.58 0.59 1/467 12045\n",
}


def test_a_throttled_pi_says_so_with_its_clock_and_temperature(tree):
    assert conditions.ConditionReader(tree(PI)).read() == {
        "governor": "ondemand",
        "frequency_mhz": [600.0, 600.0, 1500.0, 600.0],
        "temperature_c": 82.173,
        "throttled": True,
        # 0x50005: bits 0 and 2 now, 16 and 18 since the start
        "throttled_flags": [
            *("under-voltage", "throttled"),
            *("under-voltage since the start", "throttled since the start"),
        ],
        "throttle_events": "unknown",
        "load": [0.52, 0.58, 0.59],
    }


def test_a_machine_that_tells_nothing_is_unknown_in_everything(tree):
    told = conditions.ConditionReader(tree({"sys/devices/system/cpu/cpu0/topology/core_id": "0"})).read()
    assert set(told.values()) == {"unknown"}


def test_a_pi_that_was_throttled_between_two_readings_is_so_in_the_second(tree):
    firmware = "sys/devices/platform/soc/soc:firmware/get_throttled"
    watched = conditions.ConditionReader(tree({firmware: "20000"}))  # the clock was capped once, before anybody looked
    assert watched.read()["throttled"] is False
    tree({firmware: "60000"})  # now also: throttled since the start
    assert watched.read()["throttled"] is True
    assert watched.read()["throttled"] is False


def test_a_pi_without_the_file_is_asked_through_its_own_tool(tree, tmp_path):
    tool = tmp_path / "vcgencmd"
    tool.write_text('#!/bin/sh\n[ "$1" = get_throttled ] && echo throttled=0x4\n')
    tool.chmod(0o755)
    told = conditions.ConditionReader(tree({}), vcgencmd=str(tool)).read()
    assert (told["throttled"], told["throttled_flags"]) == (True, ["throttled"])


@pytest.mark.parametrize("script", ["echo 'VCHI initialization failed'; exit 255", "exit 1", "exec sleep 60"])
def test_a_tool_that_fails_or_hangs_tells_nothing(tree, tmp_path, script, monkeypatch):
    monkeypatch.setattr(conditions, "VCGENCMD_TIMEOUT_S", 0.2)
    tool = tmp_path / "vcgencmd"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    told = conditions.ConditionReader(tree({}), vcgencmd=str(tool)).read()
    assert (told["throttled"], told["throttled_flags"]) == ("unknown", "unknown")


def test_an_x86_machine_counts_what_happened_between_two_readings(tree):
    counter = "sys/devices/system/cpu/cpu{}/thermal_throttle/core_throttle_count".format
    watched = conditions.ConditionReader(tree({counter(0): "7", counter(1): "2"}))
    first = watched.read()
    assert (first["throttled"], first["throttle_events"]) == ("unknown", 9)  # seven of what, and when?
    assert watched.read()["throttled"] is False
    tree({counter(1): "3"})
    assert watched.read()["throttled"] is True


@pytest.mark.parametrize(
    ("kind", "state", "throttled"),
    [
        ("thermal-cpufreq-0", 0, False),
        ("thermal-cpufreq-0", 2, True),
        ("Processor", 1, True),
        ("pwm-fan", 3, "unknown"),
    ],
)
def test_a_cooling_device_that_slows_the_cpu_is_throttling_and_a_fan_is_not(tree, kind, state, throttled):
    at = "sys/class/thermal/cooling_device0/"
    assert (
        conditions.ConditionReader(tree({at + "type": kind, at + "cur_state": str(state)})).read()["throttled"]
        is throttled
    )


def test_the_temperature_is_that_of_the_hottest_zone_of_the_cpu(tree):
    zones = {"battery": 91000, "cpu0-thermal": 55500, "cpu1-thermal": 61250, "iwlwifi_1": 70000}
    at = "sys/class/thermal/thermal_zone{}/{}".format
    files = {at(i, "type"): kind for i, kind in enumerate(zones)}
    files |= {at(i, "temp"): str(value) for i, value in enumerate(zones.values())}
    assert conditions.ConditionReader(tree(files)).read()["temperature_c"] == 61.25


def test_cpus_that_differ_are_told_apart(tree):
    told = conditions.ConditionReader(tree(cpus(["performance", "powersave"], [2400000]))).read()
    assert told["governor"] == "performance, powersave"
    assert told["frequency_mhz"] == [2400.0, "unknown"]


def test_ten_cpus_are_told_in_the_order_of_their_numbers(tree):
    told = conditions.ConditionReader(tree(cpus([], [1000 * (i + 1) for i in range(11)]))).read()
    assert told["frequency_mhz"] == [float(i + 1) for i in range(11)]


MEMINFO = "MemTotal:        1000 kB\nMemFree:          100 kB\nMemAvailable:     400 kB\n"


def test_without_a_limit_memory_is_the_machines(tree):
    root = tree({"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/\n"})
    assert memory.ram(root) == {"ram_total_bytes": 1000 * 1024, "ram_available_bytes": 400 * 1024}


def test_a_limit_of_a_cgroup_above_counts_and_its_page_cache_is_free(tree):
    root = tree(
        {
            "proc/meminfo": "MemTotal: 1048576 kB\nMemAvailable: 524288 kB\n",
            "proc/self/cgroup": "0::/box/inner\n",
            "sys/fs/cgroup/box/inner/memory.max": "max\n",
            "sys/fs/cgroup/box/inner/memory.current": "1000\n",
            "sys/fs/cgroup/box/memory.max": f"{128 * MIB}\n",
            "sys/fs/cgroup/box/memory.current": f"{100 * MIB}\n",
            "sys/fs/cgroup/box/memory.stat": f"anon {60 * MIB}\ninactive_file {40 * MIB}\n",
        }
    )
    # 128 - (100 - 40) MiB may still be had
    assert memory.ram(root) == {"ram_total_bytes": 128 * MIB, "ram_available_bytes": 68 * MIB}


def test_a_limit_of_cgroup_version_1_counts(tree):
    at = "sys/fs/cgroup/memory/docker/1f/memory.{}".format
    limits = {at("limit_in_bytes"): str(64 * MIB), at("usage_in_bytes"): str(10 * MIB)}
    limits |= {"sys/fs/cgroup/memory/memory.limit_in_bytes": str(2**63 - 4096)}  # how version 1 says "none"
    own = {
        "proc/meminfo": MEMINFO.replace("1000", "262144"),
        "proc/self/cgroup": "5:cpu:/\n4:memory:/docker/1f\n0::/\n",
    }
    assert memory.ram(tree(own | limits)) == {"ram_total_bytes": 64 * MIB, "ram_available_bytes": 400 * 1024}


def test_a_limit_is_found_where_a_container_sees_its_own_cgroup_as_the_root(tree):
    files = {"sys/fs/cgroup/memory.max": "4096", "sys/fs/cgroup/memory.current": "1096"}
    root = tree(files | {"proc/self/cgroup": "0::/../../host/path\n"})
    assert memory.ram(root) == {"ram_total_bytes": 4096, "ram_available_bytes": 3000}


def test_memory_nobody_tells_is_unknown(tree):
    assert memory.ram(tree({})) == {"ram_total_bytes": "unknown", "ram_available_bytes": "unknown"}


def test_features_are_those_that_all_cpus_have(tree):
    big_little = "processor: 0\nFeatures\t: fp asimd aes\n\nprocessor: 1\nFeatures\t: fp asimd aes atomics\n"
    assert capabilities.cpu_features(tree({"proc/cpuinfo": big_little})) == ["aes", "asimd", "fp"]
    assert capabilities.cpu_features(tree({"proc/cpuinfo": "processor: 0\nflags\t\t: sse2 avx2\n"})) == ["avx2", "sse2"]
    assert capabilities.cpu_features(tree({"proc/cpuinfo": "processor: 0\nvendor_id: x\n"})) == "unknown"


def elf(machine, order="<"):
    """The beginning of a program: magic, class 64, byte order, version, ..., type, machine."""
    return b"\x7fELF\x02" + (b"\x01" if order == "<" else b"\x02") + bytes(10) + struct.pack(order + "HH", 2, machine)


X86_64, AARCH64, S390 = 62, 183, 22


@pytest.mark.parametrize(
    ("kernel", "machine", "emulated"),
    [
        *(("x86_64", "x86_64", False), ("x86_64", "i686", False), ("x86_64", "aarch64", True)),
        *(("aarch64", "aarch64", False), ("aarch64", "armv8l", False), ("aarch64", "x86_64", True)),
        ("riscv64", "aarch64", True),
    ],
)
def test_a_machine_that_is_not_the_kernels_is_emulated(tree, kernel, machine, emulated):
    assert capabilities.emulated(tree({"proc/sys/kernel/arch": kernel + "\n"}), machine=machine) is emulated


@pytest.mark.parametrize(
    ("running", "own", "emulated"),
    [
        *((elf(AARCH64), elf(AARCH64), False), (elf(X86_64), elf(AARCH64), True)),
        *(
            (elf(S390, ">"), elf(S390, ">"), False),
            (elf(S390 << 8), elf(S390, ">"), True),
            (b"#!/bin/sh\n" * 4, elf(AARCH64), "unknown"),
        ),
        (elf(X86_64)[:10], elf(X86_64), "unknown"),
    ],
)
def test_on_an_older_kernel_the_program_that_truly_runs_tells(tree, running, own, emulated):
    root = tree({"proc/thread-self/exe": running, "bin/python": own})
    assert capabilities.emulated(root, machine="aarch64", program=root + "/bin/python") is emulated


def test_where_nothing_tells_nobody_knows_whether_it_is_emulated(tree):
    assert capabilities.emulated(tree({})) == "unknown"


def usb(port, vendor, product):
    at = f"sys/bus/usb/devices/{port}/"
    return {at + "idVendor": vendor + "\n", at + "idProduct": product + "\n"}


def test_an_edge_tpu_is_found_before_and_after_its_first_use_and_on_pcie(tree):
    others = usb("usb1", "1d6b", "0002") | usb("1-2", "18d1", "4ee7") | {"sys/bus/usb/devices/1-0:1.0/power": ""}
    assert delegates.edge_tpus(tree(others)) == "unsupported"
    found = others | usb("1-1", "1a6e", "089a") | usb("2-1", "18d1", "9302") | {"dev/apex_0": "", "dev/apex_rule": ""}
    assert delegates.edge_tpus(tree(found)) == ["pci:apex_0", "usb:1-1", "usb:2-1"]


def test_where_no_bus_can_be_read_an_edge_tpu_is_unknown(tree):
    assert delegates.edge_tpus(tree({"proc/loadavg": "0 0 0"})) == "unknown"


class Refusing:
    """A runtime whose `load_delegate` fails; a test gives it the error."""

    def __init__(self, error):
        self.error, self.asked = error, []

    def load_delegate(self, library, options):
        self.asked.append((library, options))
        raise self.error


def test_without_an_edge_tpu_its_library_is_not_even_loaded(tree):
    runtime = Refusing(AssertionError("must not be called"))
    with pytest.raises(DeviceError, match="no Edge TPU on this device: neither a USB device 1a6e:089a or 18d1:9302"):
        delegates.load(runtime, {"library": "edgetpu"}, tree({"sys/bus/pci/x": ""}))
    assert runtime.asked == []


def test_with_an_edge_tpu_corals_library_is_asked_and_its_silence_is_put_into_words(tree):
    runtime = Refusing(ValueError("Failed to load delegate from libedgetpu.so.1\n"))
    with pytest.raises(DeviceError, match=r"libedgetpu.so.1 refuses: it gives no reason; most often its device is"):
        delegates.load(runtime, {"library": "edgetpu", "options": {"device": "usb"}}, tree(usb("1-1", "18d1", "9302")))
    assert runtime.asked == [("libedgetpu.so.1", {"device": "usb"})]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError("libx.so: cannot open shared object file"), "cannot be loaded .libx.so: cannot open shared object"),
        (
            AttributeError("undefined symbol: tflite_plugin_create_delegate"),
            "libx.so is not a delegate .undefined symbol",
        ),
        (
            ValueError("Failed to load delegate from libx.so\nno device found."),
            "refuses: no device found[.] Mend that, or measure without --delegate[.]$",
        ),
    ],
)
def test_a_library_that_is_no_delegate_or_has_no_device_is_the_devices_failure(error, words):
    with pytest.raises(DeviceError, match=words):
        delegates.load(Refusing(error), {"library": "libx.so"})


class Nodes:
    """An interpreter's nodes as (name, inputs, outputs); -1: an optional input that is absent."""

    def __init__(self, *nodes):
        self.nodes = nodes
        self.NumNodes = lambda: len(nodes)
        self.NodeName, self.NodeInputs, self.NodeOutputs = (
            lambda i: nodes[i][0],
            lambda i: nodes[i][1],
            lambda i: nodes[i][2],
        )


# 0 -CONV-> 1 -ADD-> 2 -SOFTMAX-> 3, with weights 10 and 11
CHAIN = (("CONV_2D", [0, 10, -1], [1]), ("ADD", [1, 11], [2]), ("SOFTMAX", [2], [3]))


@pytest.mark.parametrize(
    ("added", "indices"),
    [
        ([], []),
        ([("DELEGATE", [0, 10, 11], [3])], [0, 1, 2]),
        ([("DELEGATE", [0, 10, 11], [2])], [0, 1]),
        ([("DELEGATE", [1, 11], [2])], [1]),
        ([("DELEGATE", [0, 10], [1]), ("DELEGATE", [2], [3])], [0, 2]),
    ],
)
def test_what_a_delegate_took_is_what_lies_between_its_ends(added, indices):
    assert delegates.taken(Nodes(*CHAIN, *added)) == (indices, ["CONV_2D", "ADD", "SOFTMAX"])


def test_operators_left_on_the_cpu_are_named_and_counted():
    words = r"x\.so leaves 3 of 5 operators on the CPU: 2 ADD, 1 SOFTMAX \(operator 1, 3, 4\)"
    with pytest.raises(TargetError, match=words):
        delegates.all_taken("x.so", [0, 2], ["CONV_2D", "ADD", "MUL", "ADD", "SOFTMAX"])
    delegates.all_taken("x.so", [0, 1], ["CONV_2D", "ADD"])


def test_times_add_up_by_operator_over_runs_and_partitions():
    run = [
        ("Invoke", 1, 0, 0, 60),  # spans them all: no operator
        *(("Convolution", 8, 0, 0, 10), ("Add", 8, 1, 0, 1)),  # XNNPACK's first partition
        ("SOFTMAX", 2, 7, 0, 20),
        ("Convolution", 8, 0, 0, 5),  # and its second
        *(("WHILE", 2, 8, 0, 9), ("ADD", 2, 0, 1, 4), ("ADD", 2, 0, 1, 4)),  # two rounds of a loop's graph
    ]
    totals = Totals()
    totals.add(run)
    totals.add([(name, kind, index, graph, 3 * us) for name, kind, index, graph, us in run])
    fields = ("name", "delegated", "graph", "index", "calls", "mean_us", "p50_us")
    assert [tuple(op[field] for field in fields) for op in totals.ops()] == [
        ("Convolution", True, 0, 0, 2, 20.0, 10),  # (10 + 30) / 2
        ("Add", True, 0, 1, 2, 2.0, 1),
        ("SOFTMAX", False, 0, 7, 2, 40.0, 20),
        ("Convolution", True, 0, 0, 2, 10.0, 5),
        ("ADD", False, 1, 0, 4, 8.0, 4),  # (4 + 4 + 12 + 12) / 4
    ]
    # 40 + 4 + 80 + 20 + 32 microseconds in all
    assert [op["share"] for op in totals.ops()] == [40 / 176, 4 / 176, 80 / 176, 20 / 176, 32 / 176]
