/** A disk that goes private and back: the way into the trust, what must be given back before, and everything that stops it. */
import { describe, expect, test } from "vitest";
import { MiB, PhysAddr } from "../../src/base/index.ts";
import { Nvme } from "../../src/consumers/nvme/index.ts";
import { policyHex, type TeeDevice } from "../../src/consumers/tee/index.ts";
import { Vendor } from "../../src/hosts/simulated/tee/index.ts";
import { decodeReport, encodeReport, RANGE_ATTRIBUTE } from "../../src/layouts/tdisp/index.ts";
import type { DeviceEvidence } from "../../src/platform/index.ts";
import { type Assigned, alike, refusal, Stand } from "./stand.ts";

const NOTHING = { privatePages: 0, sharedPages: 0, bounces: 0, convertedPages: 0, tableEntries: 0, ranges: 0 };

const open = (stand: Stand, { pci, device }: Assigned): Promise<Nvme> =>
  stand.run(Nvme.open(pci, device.openDma(), { clock: stand.tee.machine.clock }));

test("a disk outside the trust bounces every byte, inside it none, and outside again every one", async () => {
  const stand = new Stand();
  const disk = await stand.disk();
  const { device } = disk;
  const { gate } = stand.tee;
  const written = stand.buffer(MiB);
  for (let i = 0; i < MiB; i++) written.bytes[i] = (i * 7 + (i >> 9)) & 0xff;
  const read = stand.buffer(MiB);
  const copied = (): number => stand.guest.counters.bouncedBytes;

  // Outside: 1 MiB copied in for the write; for the read 1 MiB in and 1 MiB out. No request has the T bit.
  let nvme = await open(stand, disk);
  let before = copied();
  await stand.run(nvme.write(0, [{ phys: written.phys, length: MiB }]));
  expect(copied() - before).toBe(MiB);
  await stand.run(nvme.read(0, [{ phys: read.phys, length: MiB }]));
  expect([copied() - before, gate.passed.trusted]).toEqual([3 * MiB, 0]);
  expect(alike(read.bytes, written.bytes)).toBe(true);
  await stand.run(nvme.close());
  expect(device.live).toEqual(NOTHING);

  // Inside: nothing copied, data and queues by requests with the T bit, through the guest's own tables.
  await stand.run(device.start(stand.policy));
  expect(device.trust).toBe("run");
  read.bytes.fill(0);
  nvme = await open(stand, disk);
  before = copied();
  const [walks, plain] = [stand.guest.unit.walks, gate.passed.plain];
  await stand.run(nvme.read(0, [{ phys: read.phys, length: MiB }]));
  await stand.run(nvme.write(4096, [{ phys: written.phys, length: MiB }]));
  expect([copied() - before, gate.passed.plain - plain]).toEqual([0, 0]);
  expect(gate.passed.trusted).toBeGreaterThan(512);
  expect(stand.guest.unit.walks).toBeGreaterThan(walks);
  expect(alike(read.bytes, written.bytes)).toBe(true);
  await stand.run(nvme.close());
  expect(device.live).toEqual(NOTHING);

  // Outside again.
  await stand.run(device.stop());
  expect(device.trust).toBe("none");
  read.bytes.fill(0);
  nvme = await open(stand, disk);
  before = copied();
  await stand.run(nvme.read(4096, [{ phys: read.phys, length: MiB }]));
  expect([copied() - before, alike(read.bytes, written.bytes)]).toEqual([2 * MiB, true]);
  await stand.run(nvme.close());
  expect(gate.refused).toEqual([]);
  expect(device.counters).toMatchObject({ starts: 1, stops: 1, refusals: 0 });
  expect(device.counters.lockToRunMs).toBeGreaterThan(0);
  written.free();
  read.free();
  expect(await stand.tearDown()).toEqual([]);
});

describe("nothing of before survives the way in", () => {
  const cases: [string, (device: TeeDevice, stand: Stand) => () => void][] = [
    [
      "a bounced mapping",
      (device, stand) => {
        const mapping = device.openDma().map(stand.buffer(4096).phys, 4096, "to-device");
        return () => mapping.unmap();
      },
    ],
    [
      "a shared mapping",
      (device, stand) => {
        const page = stand.guest.pages.allocatePages(1)!;
        stand.guest.encryption.convert(page, 1, "shared");
        const mapping = device.openDma().map(PhysAddr(page * 4096), 4096, "to-device", { shared: true });
        return () => mapping.unmap();
      },
    ],
    [
      "memory for both sides",
      (device) => {
        const memory = device.openDma().allocCoherent(8192);
        return () => memory.free();
      },
    ],
    [
      "a scatterlist",
      (device, stand) => {
        const list = [{ phys: stand.buffer(4096).phys, length: 4096 }];
        const mapping = device.openDma().mapScatterlist(list, "from-device");
        return () => mapping.unmap();
      },
    ],
  ];

  test.each(cases)("%s: start is EBUSY while it is there, and the device is as it was", async (_, make) => {
    const stand = new Stand();
    const { device, fn } = await stand.engine();
    const giveBack = make(device, stand);
    expect(await refusal(stand.run(device.start(stand.policy)))).toEqual(["ERR_DMA_TEE_LIVE", "EBUSY"]);
    expect([device.trust, fn.interface.state, fn.interface.events]).toEqual(["none", "configUnlocked", []]);
    giveBack();
    await stand.run(device.start(stand.policy));
    expect(device.trust).toBe("run");
  });

  const inside: [string, (device: TeeDevice, stand: Stand) => () => void][] = [
    [
      "a mapping",
      (device, stand) => {
        const mapping = device.openDma().map(stand.buffer(4096).phys, 4096, "to-device");
        return () => mapping.unmap();
      },
    ],
    [
      "a range with a link",
      (device, stand) => {
        const range = device.openDma().tryReserveIova({ length: 8192 })!;
        range.link(0, stand.buffer(4096).phys, 4096, "to-device");
        return () => range.destroy();
      },
    ],
    [
      "a range in which nothing is linked",
      (device) => {
        const range = device.openDma().tryReserveIova({ length: 4096 })!;
        return () => range.free();
      },
    ],
    [
      "memory for both sides",
      (device) => {
        const memory = device.openDma().allocCoherent(4096);
        return () => memory.free();
      },
    ],
  ];

  test.each(inside)("nor the way out: %s", async (_, make) => {
    const stand = new Stand();
    const { device, fn } = await stand.engine();
    await stand.run(device.start(stand.policy));
    const giveBack = make(device, stand);
    expect(await refusal(stand.run(device.stop()))).toEqual(["ERR_DMA_TEE_LIVE", "EBUSY"]);
    expect([device.trust, fn.interface.state]).toEqual(["run", "run"]);
    giveBack();
    await stand.run(device.stop());
    expect([device.trust, fn.interface.state]).toEqual(["none", "configUnlocked"]);
  });
});

describe("order", () => {
  test("start twice, stop of what does not run, and a door on the way are EBUSY", async () => {
    const stand = new Stand();
    const { device } = await stand.engine();
    const busy = ["ERR_DMA_TEE_TRUST", "EBUSY"];
    expect(await refusal(device.stop())).toEqual(busy);
    const start = device.start(stand.policy);
    expect(device.trust).toBe("starting");
    expect(await refusal(() => device.openDma())).toEqual(busy);
    expect(await refusal(device.start(stand.policy))).toEqual(busy);
    await stand.run(start);
    expect(await refusal(device.start(stand.policy))).toEqual(busy);
    const stop = device.stop();
    expect(await refusal(() => device.openDma())).toEqual(busy);
    expect(await refusal(device.stop())).toEqual(busy);
    await stand.run(stop);
  });

  test("a device that the host has not bound is ENXIO", async () => {
    const stand = new Stand();
    const { device, fn } = await stand.engine();
    await stand.run(stand.files.core.unbind(fn));
    expect(await refusal(device.start(stand.policy))).toEqual(["ERR_DMA_TEE_UNBOUND", "ENXIO"]);
  });

  test("a device with transfers under way is not locked, and can be later", async () => {
    const stand = new Stand();
    const { device, engine } = await stand.engine();
    engine.run([{ do: "wait", ms: 5 }]);
    expect(await refusal(stand.run(device.start(stand.policy)))).toEqual(["ERR_DMA_SIM_TDISP", "EBUSY"]);
    expect(device.trust).toBe("none");
    stand.tee.machine.clock.advance(10);
    await stand.run(device.start(stand.policy));
    expect(device.trust).toBe("run");
  });

  test("a start that fails leaves the old door as it was, one that works ends it", async () => {
    const stand = new Stand();
    const { device } = await stand.engine();
    const door = device.openDma();
    const buffer = stand.buffer(4096);
    await refusal(stand.run(device.start({ roots: [], measurements: {} })));
    door.map(buffer.phys, 4096, "to-device").unmap();
    await stand.run(device.start(stand.policy));
    expect(await refusal(() => door.map(buffer.phys, 4096, "to-device"))).toEqual(["ERR_DMA_TEE_CONTRACT", "EPERM"]);
  });
});

describe("what the guest judges", () => {
  const reasons = async (stand: Stand, { device, fn }: Assigned, policy = stand.policy): Promise<string[]> => {
    const pages = [...stand.tee.pages.entries()].length;
    const error = await stand.run(device.start(policy)).then(
      () => ({ details: { reasons: [] } }),
      (thrown) => thrown as { details: { reasons: { code: string }[] } },
    );
    const codes = error.details.reasons.map(({ code }) => code);
    if (codes.length > 0) {
      // Refused means: outside, unlocked, nothing accepted, nothing attached.
      expect([device.trust, fn.interface.state, device.counters.refusals]).toEqual(["none", "configUnlocked", 1]);
      expect([...stand.tee.pages.entries()].length).toBe(pages);
    }
    return codes;
  };

  test("a device that satisfies the policy gives no reason", async () => {
    const stand = new Stand();
    expect(await reasons(stand, await stand.engine())).toEqual([]);
  });

  test("a policy that says nothing lets nobody in, and every reason is given", async () => {
    const stand = new Stand();
    expect(await reasons(stand, await stand.engine(), { roots: [], measurements: {} })).toEqual([
      "root",
      "measurement",
    ]);
  });

  test("a device of another vendor", async () => {
    const stand = new Stand();
    const other = new Vendor(stand.tee.keys, stand.tee.random.fork("other"), stand.tee.vendor.name);
    expect(await reasons(stand, await stand.engine("0.0", { vendor: other }))).toEqual(["root"]);
  });

  test.each<[string, ReturnType<typeof measured>, string[]]>([
    ["firmware that was changed", measured(1, 9), ["measurement"]],
    ["a measurement that nobody asked for", [...measured(1), ...measured(7, 9)], ["measurement"]],
    ["none at all", [], ["measurement"]],
    ["one that is given twice", [...measured(1), ...measured(1)], ["measurement"]],
  ])("a device with %s", async (_, measurements, expected) => {
    const stand = new Stand();
    const device = await stand.engine();
    const good = device.fn.device.measurements[0]!.value;
    device.fn.device.measurements = measurements.map(({ value, ...rest }) => ({ ...rest, value: value ?? good }));
    expect(await reasons(stand, device)).toEqual(expected);
  });

  test("other measurements may be allowed, and must then still not contradict", async () => {
    const stand = new Stand();
    const device = await stand.engine();
    const [first] = device.fn.device.measurements;
    device.fn.device.measurements = [first!, { index: 9, measured: "manifest", value: Uint8Array.of(1), raw: true }];
    expect(await reasons(stand, device, { ...stand.policy, allowOtherMeasurements: true })).toEqual([]);
  });

  test("memory outside the trust: not unless it is the MSI-X table, or the policy allows it", async () => {
    const ranges = (attributes: number) => () => [
      { bar: 0, offset: 0, length: 0x8000 },
      { bar: 0, offset: 0x8000, length: 0x8000, attributes },
    ];
    const ask = async (attributes: number, outsideMemory?: "none" | "msix" | "any"): Promise<string[]> => {
      const stand = new Stand();
      const policy = { ...stand.policy, ...(outsideMemory && { outsideMemory }) };
      return reasons(stand, await stand.engine("0.0", { ranges: ranges(attributes) }), policy);
    };
    const { nonTee, msixTable } = RANGE_ATTRIBUTE;
    expect(await ask(nonTee)).toEqual(["outside-memory"]);
    expect(await ask(nonTee, "any")).toEqual([]);
    expect(await ask(nonTee | msixTable)).toEqual([]);
    expect(await ask(nonTee | msixTable, "none")).toEqual(["outside-memory"]);
  });

  test("memory that the device does not report, or that is not where the guest sees it", async () => {
    const half = new Stand();
    const device = await half.engine("0.0", { ranges: () => [{ bar: 0, offset: 0, length: 0x8000 }] });
    expect(await reasons(half, device)).toEqual(["memory"]);
    const moved = new Stand();
    const { fn, pci } = await moved.engine();
    // The host shows the guest its device at another place.
    const shown = moved.software.addDevice({
      device: pci,
      interface: () => moved.tee.interfaceOf(fn),
      bars: () => fn.node.bars.map((bar) => ({ ...bar, phys: bar.phys + 0x10_0000 })),
    });
    expect(await reasons(moved, { fn, pci, device: shown })).toEqual(["memory", "memory"]);
  });

  const changes: [string, (evidence: DeviceEvidence) => DeviceEvidence][] = [
    ["the report", ({ report, ...rest }) => ({ ...rest, report: withoutSecrets(report) })],
    ["the measurements", ({ measurements, ...rest }) => ({ ...rest, measurements: changed(measurements) })],
    ["the certificates", ({ certificates, ...rest }) => ({ ...rest, certificates: changed(certificates) })],
  ];
  test.each(changes)("a host that changes %s on the way: the digest is the manager's", async (_, change) => {
    const stand = new Stand();
    const device = await stand.engine();
    stand.guest.evidenceCarrier = (_fn, evidence) => change(evidence);
    expect(await reasons(stand, device)).toEqual(["digest"]);
    stand.guest.evidenceCarrier = undefined;
    await stand.run(device.device.start(stand.policy));
  });

  test("a host that gives evidence of before: it is another nonce's", async () => {
    const stand = new Stand();
    const { device, fn } = await stand.engine();
    let old: DeviceEvidence | undefined;
    stand.guest.evidenceCarrier = (_fn, evidence) => {
      old ??= evidence;
      return old;
    };
    await stand.run(device.start(stand.policy));
    await stand.run(device.stop());
    // New firmware, and evidence from when it was good.
    fn.device.measurements = [{ index: 1, measured: "mutableFirmware", value: new Uint8Array(32) }];
    expect(await refusal(stand.run(device.start(stand.policy)))).toEqual(["ERR_DMA_TEE_POLICY", "EACCES"]);
  });
});

const changed = (bytes: Uint8Array): Uint8Array => bytes.map((byte, i) => (i === bytes.length - 1 ? byte ^ 1 : byte));

/** A report in which everything is outside the trust. */
function withoutSecrets(report: Uint8Array): Uint8Array {
  const said = decodeReport(report)!;
  return encodeReport({
    ...said,
    ranges: said.ranges.map((range) => ({ ...range, attributes: RANGE_ATTRIBUTE.nonTee })),
  });
}

/** Measurements to give a device: the good value, unless another byte is said. */
function measured(index: number, byte?: number) {
  const value = byte === undefined ? undefined : new Uint8Array(32).fill(byte);
  return [{ index, measured: "mutableFirmware" as const, value }];
}

test("a policy is a value: what a device was is written into it as text", async () => {
  const stand = new Stand();
  const policy = JSON.parse(JSON.stringify(stand.policy)) as typeof stand.policy;
  const { device } = await stand.engine();
  const judgement = await stand.run(device.start(policy));
  expect(judgement.memory).toEqual([{ bar: 0, phys: expect.any(Number), length: 65_536, isTrusted: true }]);
  expect(policyHex(Uint8Array.of(0, 255))).toBe("00ff");
});
