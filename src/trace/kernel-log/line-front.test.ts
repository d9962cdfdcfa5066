/** The front of a log line: every form in which the tools print it. */
import { describe, expect, test } from "vitest";
import { LogFronts } from "./line-front.ts";

const MESSAGE = "DMAR: DRHD: handling fault status reg 3";
const read = (line: string): ReturnType<LogFronts["read"]> => new LogFronts().read(line);
const utc = (text: string): number => Date.parse(text) / 1000;

describe("the kernel's own stamp", () => {
  test.each([
    ["dmesg", `[   19.972738] ${MESSAGE}`, 19, 972_738_000, undefined],
    ["dmesg after a month", `[2592000.000001] ${MESSAGE}`, 2_592_000, 1000, undefined],
    ["dmesg -x", `kern  :err   : [   19.972738] ${MESSAGE}`, 19, 972_738_000, 3],
    ["dmesg -r", `<4>[   19.972738] ${MESSAGE}`, 19, 972_738_000, 4],
    ["dmesg -d", `[   19.972738 <    0.000012>] ${MESSAGE}`, 19, 972_738_000, undefined],
    ["with the caller", `[   19.972738][    C0] ${MESSAGE}`, 19, 972_738_000, undefined],
    ["with the caller, apart", `[   19.972738] [  T123] ${MESSAGE}`, 19, 972_738_000, undefined],
    ["journalctl -o short-monotonic", `[   19.972738] box kernel: ${MESSAGE}`, 19, 972_738_000, undefined],
    [
      "a system log with the stamp inside",
      `Oct 25 12:25:45 box kernel: [   19.972738] ${MESSAGE}`,
      19,
      972_738_000,
      undefined,
    ],
    ["a system log without host", `kernel: [   19.972738] ${MESSAGE}`, 19, 972_738_000, undefined],
    ["busybox", `Oct 25 12:25:45 (none) user.err kernel: [   19.972738] ${MESSAGE}`, 19, 972_738_000, undefined],
    [
      "a terminal program's own date in front",
      `[2023-10-25 12:25:45.123] [   19.972738] ${MESSAGE}`,
      19,
      972_738_000,
      undefined,
    ],
    ["a priority in front of a date", `<6>Oct 25 12:25:45 box kernel: [   19.972738] ${MESSAGE}`, 19, 972_738_000, 6],
  ])("is taken from %s", (_, line, seconds, nanoseconds, level) => {
    expect(read(line)).toMatchObject({
      kernel: true,
      sure: true,
      clock: "boot",
      seconds,
      nanoseconds,
      level,
      message: MESSAGE,
    });
  });
});

describe("a date", () => {
  test.each([
    ["dmesg -T", `[Wed Oct 25 12:25:45 2023] ${MESSAGE}`, utc("2023-10-25T12:25:45Z"), 0, 1e9],
    ["dmesg -x -T", `kern  :warn  : [Wed Oct  5 12:25:45 2023] ${MESSAGE}`, utc("2023-10-05T12:25:45Z"), 0, 1e9],
    [
      "dmesg --time-format iso",
      `2023-10-25T12:25:45,123456+02:00 ${MESSAGE}`,
      utc("2023-10-25T10:25:45Z"),
      123_456_000,
      1e3,
    ],
    ["dmesg -e", `[Oct25 12:25] ${MESSAGE}`, utc("2000-10-25T12:25:00Z"), 0, 60e9],
    ["journalctl", `Oct 25 12:25:45 box kernel: ${MESSAGE}`, utc("2000-10-25T12:25:45Z"), 0, 1e9],
    [
      "journalctl -o short-precise",
      `Oct 25 12:25:45.123456 box kernel: ${MESSAGE}`,
      utc("2000-10-25T12:25:45Z"),
      123_456_000,
      1e3,
    ],
    ["journalctl -o short-iso", `2023-10-25T12:25:45+0200 box kernel: ${MESSAGE}`, utc("2023-10-25T10:25:45Z"), 0, 1e9],
    [
      "journalctl -o short-iso of today",
      `2023-10-25T12:25:45+02:00 box kernel: ${MESSAGE}`,
      utc("2023-10-25T10:25:45Z"),
      0,
      1e9,
    ],
    [
      "journalctl -o short-iso-precise",
      `2023-10-25T12:25:45.123456-0130 box kernel: ${MESSAGE}`,
      utc("2023-10-25T13:55:45Z"),
      123_456_000,
      1e3,
    ],
    [
      "journalctl -o short-full",
      `Wed 2023-10-25 12:25:45 CEST box kernel: ${MESSAGE}`,
      utc("2023-10-25T12:25:45Z"),
      0,
      1e9,
    ],
    ["journalctl -o short-unix", `1698229545.123456 box kernel: ${MESSAGE}`, 1_698_229_545, 123_456_000, 1e3],
    [
      "rsyslog",
      `2023-10-25T12:25:45.123456+02:00 box kernel: ${MESSAGE}`,
      utc("2023-10-25T10:25:45Z"),
      123_456_000,
      1e3,
    ],
    ["RFC 5424", `<3>1 2023-10-25T12:25:45Z box kernel - - - ${MESSAGE}`, utc("2023-10-25T12:25:45Z"), 0, 1e9],
  ])("is taken from %s", (_, line, seconds, nanoseconds, resolutionNs) => {
    expect(read(line)).toMatchObject({
      kernel: true,
      sure: true,
      clock: "wall",
      seconds,
      nanoseconds,
      resolutionNs,
      message: MESSAGE,
    });
  });

  test("without a year goes into the next one after December", () => {
    const fronts = new LogFronts();
    const december = fronts.read(`Dec 31 23:59:59 box kernel: ${MESSAGE}`);
    const january = fronts.read(`Jan  1 00:00:01 box kernel: ${MESSAGE}`);
    expect(january.seconds - december.seconds).toBe(2);
  });

  test("in a month that is not known is no time", () => {
    expect(read(`Brumaire 5 12:25:45 box kernel: ${MESSAGE}`).clock).toBe("none");
    expect(read(`xyz 25 12:25:45 box kernel: ${MESSAGE}`)).toMatchObject({ clock: "none", message: MESSAGE });
  });
});

describe("a line", () => {
  test.each([
    [
      "its device for a host",
      "amdgpu 0000:05:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x000c address=0x1000 flags=0x0020]",
    ],
    ["its driver for a host", "arm-smmu-v3 70c00000.iommu: event 0x10 received:"],
    ["its words for a date", "May be it is March 25 12:25:45 box"],
    ["brackets of its own", "[drm] initialized"],
  ])("without a front does not take %s", (_, message) => {
    expect(read(message)).toMatchObject({ clock: "none", sure: false, message });
    expect(read(`[    1.000000] ${message}`)).toMatchObject({ clock: "boot", message });
    expect(read(`2023-10-25T12:25:45,123456+02:00 ${message}`)).toMatchObject({ clock: "wall", message });
  });

  test.each([
    "Oct 25 12:25:45 box systemd[1]: Started something.",
    "2023-10-25T12:25:45+0200 box sshd[123]: DMAR: not the kernel's",
    "<38>1 2023-10-25T12:25:45Z box sshd 123 - - hello",
  ])("of another program is told apart: %s", (line) => {
    expect(read(line).kernel).toBe(false);
  });
});
