/** The states of a device interface: every request in every state, and everything that leads from one to another. */
import { describe, expect, test } from "vitest";
import { Random } from "../../src/base/index.ts";
import {
  answerTdisp,
  DeviceInterface,
  type InterfaceHost,
  type InterfaceRange,
  type LockedConfiguration,
} from "../../src/hosts/simulated/tee/index.ts";
import {
  decodeReport,
  decodeResponse,
  encodeRequest,
  functionId,
  INTERFACE_INFO,
  LOCK_FLAG,
  RANGE_ATTRIBUTE,
  type TdiState,
  type TdispRequest,
  type TdispRequestName,
  type TdispResponse,
} from "../../src/layouts/tdisp/index.ts";

const REQUESTER = 0x0100;
const STREAM = 3;
const PEER_STREAM = 7;
const BAR = 0x100_0000_0000;
const OFFSET = 0x7_0000;

/** An interface, and all that it asks of the function around it. */
function stand(ranges?: readonly InterfaceRange[]) {
  const world = {
    configuration: {
      requester: REQUESTER,
      decodesMemory: true,
      busMaster: true,
      bars: [
        { index: 0, phys: BAR, length: 0x4000 },
        { index: 4, phys: BAR + 0x1_0000, length: 0x1_0000 },
      ],
      msixTable: 0,
      virtualFunctions: 0,
    } as LockedConfiguration,
    quiet: true,
    secure: new Set([STREAM, PEER_STREAM]),
    scrubs: 0,
  };
  const host: InterfaceHost = {
    random: Random.fromSeed(1),
    configuration: () => world.configuration,
    isQuiet: () => world.quiet,
    isStreamSecure: (stream) => world.secure.has(stream),
    isPeerStream: (stream) => stream === PEER_STREAM,
    scrub: () => void world.scrubs++,
    ranges: ranges ?? [
      { bar: 0, offset: 0, length: 0x3000 },
      { bar: 0, offset: 0x3000, length: 0x1000, attributes: RANGE_ATTRIBUTE.msixTable | RANGE_ATTRIBUTE.nonTee },
      { bar: 4, offset: 0, length: 0x1_0000, attributes: RANGE_ATTRIBUTE.updatable, secret: true },
    ],
  };
  const tdi = new DeviceInterface(REQUESTER, host);
  const ask = (request: TdispRequest, requester = REQUESTER): TdispResponse =>
    decodeResponse(answerTdisp([tdi], encodeRequest(functionId(requester), request))!)!.response;
  let nonce: Uint8Array = new Uint8Array(32);
  const lock = (more: Partial<TdispRequest & { type: "lockInterface" }> = {}): TdispResponse => {
    const answer = ask({ ...LOCK, ...more });
    if (answer.type === "lockInterface") nonce = answer.nonce;
    return answer;
  };
  const start = (): TdispResponse => ask({ type: "startInterface", nonce });
  return { world, tdi, ask, lock, start, nonce: () => nonce };
}

const LOCK: TdispRequest & { type: "lockInterface" } = {
  type: "lockInterface",
  flags: LOCK_FLAG.noFirmwareUpdate | LOCK_FLAG.lockMsix | LOCK_FLAG.bindP2p,
  defaultStream: STREAM,
  mmioReportingOffset: OFFSET,
  p2pAddressMask: 0,
};

/** An interface that is in a state by the way that leads there. */
function inState(state: TdiState): ReturnType<typeof stand> {
  const made = stand();
  if (state === "configUnlocked") return made;
  made.lock();
  if (state !== "configLocked") made.start();
  if (state === "error") made.tdi.fail("internal fault");
  expect(made.tdi.state).toBe(state);
  return made;
}

const STATES: readonly TdiState[] = ["configUnlocked", "configLocked", "run", "error"];

/** In which states a request is legal, and where it leads. */
const TABLE: Readonly<Record<TdispRequestName, { legal: readonly TdiState[]; to?: TdiState }>> = {
  getVersion: { legal: STATES },
  getCapabilities: { legal: STATES },
  lockInterface: { legal: ["configUnlocked"], to: "configLocked" },
  getInterfaceReport: { legal: ["configLocked", "run"] },
  getInterfaceState: { legal: STATES },
  startInterface: { legal: ["configLocked"], to: "run" },
  stopInterface: { legal: STATES, to: "configUnlocked" },
  bindP2pStream: { legal: ["run"] },
  unbindP2pStream: { legal: ["run"] },
  setMmioAttribute: { legal: ["run"] },
};

const requestFor = (type: TdispRequestName, nonce: Uint8Array): TdispRequest => {
  const range = { firstPage: BAR + 0x1_0000 + OFFSET, pages: 16, attributes: RANGE_ATTRIBUTE.nonTee, id: 4 };
  const requests: Readonly<Record<TdispRequestName, TdispRequest>> = {
    getVersion: { type: "getVersion" },
    getCapabilities: { type: "getCapabilities", managerCapabilities: 0 },
    lockInterface: LOCK,
    getInterfaceReport: { type: "getInterfaceReport", offset: 0, length: 256 },
    getInterfaceState: { type: "getInterfaceState" },
    startInterface: { type: "startInterface", nonce },
    stopInterface: { type: "stopInterface" },
    bindP2pStream: { type: "bindP2pStream", stream: PEER_STREAM },
    unbindP2pStream: { type: "unbindP2pStream", stream: PEER_STREAM },
    setMmioAttribute: { type: "setMmioAttribute", range },
  };
  return requests[type];
};

describe.each(STATES)("in state %s", (state) => {
  test.each(Object.keys(TABLE) as TdispRequestName[])(
    "%s does what the table says, or is error 4 and changes nothing",
    (type) => {
      const { ask, tdi, nonce } = inState(state);
      const { legal, to } = TABLE[type];
      if (type === "unbindP2pStream" && state === "run") ask(requestFor("bindP2pStream", nonce()));
      const answer = ask(requestFor(type, nonce()));
      if (legal.includes(state)) {
        expect(answer.type).toBe(type);
        expect(tdi.state).toBe(to ?? state);
      } else {
        expect(answer).toEqual({ type: "error", error: "invalidInterfaceState", data: 0 });
        expect(tdi.state).toBe(state);
      }
    },
  );

  test.each(Object.keys(TABLE) as TdispRequestName[])(
    "%s for another function is error 0x101 and changes nothing",
    (type) => {
      const { ask, tdi, nonce } = inState(state);
      expect(ask(requestFor(type, nonce()), 0x0101)).toMatchObject({ type: "error", error: "invalidInterface" });
      expect(tdi.state).toBe(state);
    },
  );

  test("a message of another version, an unknown code and a payload cut short are errors of their own", () => {
    const { tdi, nonce } = inState(state);
    const raw = (bytes: Uint8Array): TdispResponse => decodeResponse(answerTdisp([tdi], bytes)!)!.response;
    const bytes = encodeRequest(functionId(REQUESTER), requestFor("startInterface", nonce()));
    expect(raw(bytes.map((byte, i) => (i === 0 ? 0x11 : byte)))).toMatchObject({ error: "versionMismatch" });
    expect(raw(bytes.map((byte, i) => (i === 1 ? 0x8f : byte)))).toMatchObject({ error: "unsupportedRequest" });
    expect(raw(bytes.slice(0, -1))).toMatchObject({ error: "invalidRequest" });
    expect(answerTdisp([tdi], bytes.slice(0, 15))).toBeUndefined();
    expect(tdi.state).toBe(state);
  });
});

describe("LOCK", () => {
  test("is refused as busy while the function has transfers under way, and leaves it unlocked", () => {
    const { world, lock, tdi } = stand();
    world.quiet = false;
    expect(lock()).toMatchObject({ error: "busy" });
    expect(tdi.state).toBe("configUnlocked");
  });

  test.each<[string, Partial<LockedConfiguration>]>([
    [
      "BARs that overlap",
      {
        bars: [
          { index: 0, phys: BAR, length: 0x4000 },
          { index: 4, phys: BAR + 0x3000, length: 0x1_0000 },
        ],
      },
    ],
    ["memory that it does not decode", { decodesMemory: false }],
  ])("is refused for %s", (_, change) => {
    const { world, lock, tdi } = stand();
    world.configuration = { ...world.configuration, ...change };
    expect(lock()).toMatchObject({ error: "invalidDeviceConfiguration" });
    expect(tdi.state).toBe("configUnlocked");
  });

  test("is refused on a stream that is not secure, for flags nobody knows, and without entropy", () => {
    const { lock, tdi } = stand();
    expect(lock({ defaultStream: 9 })).toMatchObject({ error: "invalidDeviceConfiguration" });
    expect(lock({ flags: 0x8000 })).toMatchObject({ error: "invalidRequest" });
    tdi.lacksEntropy = true;
    expect(lock()).toMatchObject({ error: "insufficientEntropy" });
    expect(tdi.state).toBe("configUnlocked");
  });

  test("gives a nonce of 32 bytes, another one each time", () => {
    const { lock, ask } = stand();
    const nonces = Array.from({ length: 5 }, () => {
      const answer = lock();
      ask({ type: "stopInterface" });
      return answer.type === "lockInterface" ? answer.nonce.join() : "none";
    });
    expect(new Set(nonces).size).toBe(5);
  });
});

describe("START", () => {
  test("with a wrong nonce leaves it locked, wherever it is wrong, and the right one still works", () => {
    const { lock, ask, start, tdi, nonce } = stand();
    lock();
    for (const at of [0, 15, 31]) {
      const wrong = nonce().map((byte, i) => (i === at ? byte ^ 1 : byte));
      // The same answer for each: nothing says which byte it was.
      expect(ask({ type: "startInterface", nonce: wrong })).toEqual({ type: "error", error: "invalidNonce", data: 0 });
      expect(tdi.state).toBe("configLocked");
    }
    expect(start().type).toBe("startInterface");
  });

  test("never again with a nonce that was used, or that an earlier lock gave", () => {
    const { lock, ask, start, tdi, nonce } = stand();
    lock();
    const old = nonce();
    start();
    ask({ type: "stopInterface" });
    lock();
    expect(ask({ type: "startInterface", nonce: old })).toMatchObject({ error: "invalidNonce" });
    expect(tdi.state).toBe("configLocked");
  });
});

describe("the report", () => {
  test("says where the memory is, with the offset that LOCK gave, and what of it is trusted", () => {
    const { ask, lock } = stand();
    lock();
    const whole = ask({ type: "getInterfaceReport", offset: 0, length: 4096 });
    const report = whole.type === "getInterfaceReport" ? decodeReport(whole.portion) : undefined;
    expect(report).toMatchObject({
      interfaceInfo: INTERFACE_INFO.dmaWithoutPasid | INTERFACE_INFO.noFirmwareUpdate,
      ranges: [
        { firstPage: BAR + OFFSET, pages: 3, attributes: 0, id: 0 },
        { firstPage: BAR + 0x3000 + OFFSET, pages: 1, attributes: 5, id: 0 },
        { firstPage: BAR + 0x1_0000 + OFFSET, pages: 16, attributes: 8, id: 4 },
      ],
    });
  });

  test("comes in portions that add up, and none begins beyond its end", () => {
    const { ask, lock } = stand();
    lock();
    const bytes: number[] = [];
    for (let remainder = 1; remainder > 0; ) {
      const part = ask({ type: "getInterfaceReport", offset: bytes.length, length: 20 });
      if (part.type !== "getInterfaceReport") throw new Error(part.type);
      bytes.push(...part.portion);
      ({ remainder } = part);
    }
    expect(decodeReport(Uint8Array.from(bytes))?.ranges).toHaveLength(3);
    expect(ask({ type: "getInterfaceReport", offset: bytes.length, length: 20 })).toMatchObject({
      error: "invalidRequest",
    });
  });
});

describe.each<["configLocked" | "run"]>([["configLocked"], ["run"]])("in %s, trust ends when", (state) => {
  const changes: [string, Partial<LockedConfiguration>][] = [
    [
      "a BAR moves",
      {
        bars: [
          { index: 0, phys: BAR + 0x10_0000, length: 0x4000 },
          { index: 4, phys: BAR + 0x1_0000, length: 0x1_0000 },
        ],
      },
    ],
    ["bus mastering is switched off", { busMaster: false }],
    ["memory decoding is switched off", { decodesMemory: false }],
    ["the MSI-X table is written", { msixTable: 1 }],
    ["virtual functions are switched on", { virtualFunctions: 2 }],
    ["the requester id changes", { requester: 0x0200 }],
  ];
  test.each(changes)("%s", (_, change) => {
    const { tdi, world } = inState(state);
    world.configuration = { ...world.configuration, ...change };
    tdi.configurationWritten();
    expect(tdi.state).toBe("error");
    expect(tdi.events.at(-1)).toEqual({ what: "error", cause: "configuration changed" });
  });

  test("its stream is not secure any more, and not when another is", () => {
    const { tdi } = inState(state);
    tdi.streamLost(STREAM + 1);
    expect(tdi.state).toBe(state);
    tdi.streamLost(STREAM);
    expect(tdi.state).toBe("error");
  });

  test("something goes wrong inside", () => {
    const { tdi } = inState(state);
    tdi.fail("internal fault");
    expect(tdi.state).toBe("error");
  });

  test("and a write that changes nothing that is locked does nothing", () => {
    const { tdi } = inState(state);
    tdi.configurationWritten();
    expect(tdi.state).toBe(state);
  });
});

test("an MSI-X table that was not locked may be written", () => {
  const { tdi, world, lock } = stand();
  lock({ flags: LOCK_FLAG.noFirmwareUpdate });
  world.configuration = { ...world.configuration, msixTable: 1 };
  tdi.configurationWritten();
  expect(tdi.state).toBe("configLocked");
});

describe("from ERROR", () => {
  test("only STOP and reset lead out, and both scrub first", () => {
    for (const way of ["stop", "reset"] as const) {
      const { tdi, world, lock, start } = inState("error");
      expect(start()).toMatchObject({ error: "invalidInterfaceState" });
      expect(lock()).toMatchObject({ error: "invalidInterfaceState" });
      tdi[way]();
      expect([tdi.state, world.scrubs]).toEqual(["configUnlocked", 1]);
      lock();
      start();
      expect(tdi.state).toBe("run");
    }
  });
});

test("a reset in RUN scrubs and unlocks: what comes after is outside the trust", () => {
  const { tdi, world } = inState("run");
  tdi.reset();
  expect([tdi.state, world.scrubs, tdi.departure(false)]).toEqual(["configUnlocked", 1, { trusted: false }]);
});

describe("memory of the interface, by state, T bit and kind", () => {
  /** read and write: TEE range, TEE range with secrets, non-TEE range. */
  const probe = (tdi: DeviceInterface, trusted: boolean): string =>
    [
      [0, 0],
      [4, 0],
      [0, 0x3000],
    ]
      .map(([bar, offset]) =>
        (["read", "write"] as const)
          .map((access) => (tdi.admits(bar!, offset!, access, trusted) ? access[0] : "-"))
          .join(""),
      )
      .join(" ");

  test.each<[TdiState, string, string]>([
    // T=0: TEE, secret TEE, non-TEE; then T=1
    ["configUnlocked", "rw rw rw", "-- -- --"],
    ["configLocked", "r- -- rw", "-- -- --"],
    ["run", "-- -- rw", "rw rw rw"],
    ["error", "-- -- --", "-- -- --"],
  ])("%s: T=0 %s, T=1 %s", (state, plain, trusted) => {
    const { tdi } = inState(state);
    expect([probe(tdi, false), probe(tdi, true)]).toEqual([plain, trusted]);
  });

  test("an updatable range leaves the trust and comes back while it runs; others do not", () => {
    const { tdi, ask, nonce } = inState("run");
    const out = requestFor("setMmioAttribute", nonce()) as TdispRequest & { type: "setMmioAttribute" };
    expect(ask(out).type).toBe("setMmioAttribute");
    expect(tdi.admits(4, 0, "read", false)).toBe(true);
    ask({ ...out, range: { ...out.range, attributes: 0 } });
    expect(tdi.admits(4, 0, "read", false)).toBe(false);
    const fixed = { firstPage: BAR + OFFSET, pages: 3, attributes: RANGE_ATTRIBUTE.nonTee, id: 0 };
    expect(ask({ type: "setMmioAttribute", range: fixed })).toMatchObject({ error: "invalidRequest" });
    expect(ask({ ...out, range: { ...out.range, pages: 15 } })).toMatchObject({ error: "invalidRequest" });
  });
});

describe("requests that the function sends, by state", () => {
  test.each<[TdiState, object | undefined, object | undefined]>([
    ["configUnlocked", { trusted: false }, { trusted: false }],
    ["configLocked", { trusted: false }, { trusted: false }],
    ["run", { trusted: true }, { trusted: false }],
    ["error", undefined, undefined],
  ])("%s: %j to private addresses, %j to shared ones", (state, toPrivate, toShared) => {
    const { tdi } = inState(state);
    expect([tdi.departure(false), tdi.departure(true)]).toEqual([toPrivate, toShared]);
  });
});

describe("streams to peers", () => {
  test("are bound once, only if LOCK allowed it, and are gone with the state", () => {
    const { ask, tdi, nonce } = inState("run");
    const bind = requestFor("bindP2pStream", nonce());
    expect(ask({ type: "bindP2pStream", stream: STREAM })).toMatchObject({ error: "invalidRequest" });
    expect(ask(bind).type).toBe("bindP2pStream");
    expect(ask(bind)).toMatchObject({ error: "invalidRequest" });
    tdi.streamLost(PEER_STREAM);
    expect([tdi.state, tdi.peerStreams.size]).toEqual(["error", 0]);
  });

  test("are refused where LOCK did not allow them", () => {
    const { ask, lock, start, nonce } = stand();
    lock({ flags: LOCK_FLAG.noFirmwareUpdate });
    start();
    expect(ask(requestFor("bindP2pStream", nonce()))).toMatchObject({ error: "invalidRequest" });
  });
});
