/** The host's link core: who secures what, who follows whom, and every error of every call. */
import { describe, expect, test } from "vitest";
import { DmaError } from "../../src/base/index.ts";
import { LinkFiles, REQUEST_SCOPE } from "../../src/consumers/tee/index.ts";
import { requesterId } from "../../src/layouts/pci/index.ts";
import type { FunctionContext, LinkOperations, SecurityFunction } from "../../src/platform/index.ts";

interface Made extends SecurityFunction {
  hasTee: boolean;
  hasIde: boolean;
}

const made = (name: string, more: Partial<Made> = {}): Made => ({
  name,
  requester: requesterId(name),
  kind: "endpoint",
  parent: undefined,
  hasTee: false,
  hasIde: false,
  ...more,
});

/** A card with three functions and three virtual ones, a switch with a device below it, and a conventional device. */
function tree() {
  const f0 = made("0000:01:00.0", { hasTee: true });
  const f1 = made("0000:01:00.1");
  const f2 = made("0000:01:00.2");
  const vfs = [4, 5, 6].map((fn) => made(`0000:01:00.${fn}`, { physical: f1 }));
  const up = made("0000:02:00.0", { kind: "upstream-port", hasTee: true });
  const down = made("0000:03:00.0", { kind: "downstream-port", parent: up });
  const end = made("0000:04:00.0", { parent: down });
  const old = made("0000:00:05.0", { kind: undefined, hasTee: true });
  return { f0, f1, f2, vfs, up, down, end, old, all: [old, f0, f1, f2, ...vfs, up, down, end] };
}

type Call = `${string} ${string}`;

class Recorder implements LinkOperations {
  readonly calls: Call[] = [];
  fail: Call | undefined;
  /** What a guest request leaves over. */
  residue = 0;

  probe(fn: SecurityFunction, manager: SecurityFunction | undefined): FunctionContext | undefined {
    const call: Call = `probe ${fn.name.slice(5)}`;
    this.calls.push(call);
    if (this.fail === call) return undefined;
    return manager && { function: fn, manager, bound: undefined };
  }

  remove({ function: fn }: FunctionContext): void {
    this.#note("remove", fn);
  }

  async connect({ function: fn }: FunctionContext): Promise<void> {
    await Promise.resolve();
    this.#note("connect", fn);
  }

  disconnect({ function: fn }: FunctionContext): void {
    this.#note("disconnect", fn);
  }

  async bind({ function: fn }: FunctionContext, vm: object, id: number) {
    await Promise.resolve();
    this.#note("bind", fn);
    return { vm, id };
  }

  unbind({ function: fn }: FunctionContext): void {
    this.#note("unbind", fn);
  }

  guestRequest({ function: fn }: FunctionContext) {
    this.#note("request", fn);
    return { residue: this.residue, code: 7, response: new Uint8Array(0) };
  }

  take(): Call[] {
    return this.calls.splice(0);
  }

  #note(what: string, fn: SecurityFunction): void {
    const call: Call = `${what} ${fn.name.slice(5)}`;
    this.calls.push(call);
    if (this.fail === call) throw new DmaError("ERR_DMA_TEST", "EIO", call);
  }
}

async function stand(options: { linuxCompatible?: boolean } = {}) {
  const devices = tree();
  const present = [...devices.all];
  const files = new LinkFiles({ functions: () => present, ...options });
  const link = new Recorder();
  const manager = await files.core.register({ link });
  return { ...devices, present, files, core: files.core, link, manager };
}

const errno = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => "none",
    (error: DmaError) => error.errno,
  );

const VM = {};

describe("a security manager", () => {
  test("registers exactly one kind of operations, or none that have to do with PCI", async () => {
    const { core, link } = await stand();
    const deviceSecurity = { lock: () => {}, unlock: () => {} };
    expect(await errno(core.register({}))).toBe("EINVAL");
    expect(await errno(core.register({ link, deviceSecurity }))).toBe("EINVAL");
    expect((await core.register({ deviceSecurity })).name).toBe("tsm1");
    expect((await core.register(undefined)).name).toBe("tsm2");
  });

  test("gets the lowest number that is free", async () => {
    const { core, link, manager } = await stand();
    const second = await core.register({ link });
    await core.unregister(manager);
    expect([(await core.register({ link })).id, second.id]).toEqual([0, 1]);
  });
});

describe("connect", () => {
  test.each(["", "x", "tsm", "tsmx", " tsm0", "TSM0", "tsm 0", "tsm0x", "tsm0\n\n"])(
    "%j is EINVAL as a name",
    async (name) => {
      const { core, f0 } = await stand();
      expect(await errno(core.connect(f0, name))).toBe("EINVAL");
    },
  );

  test.each(["tsm 0", "tsm0x", "tsm00", "tsm4294967296"])(
    "%j passes for tsm0 in Linux, and only where Linux is asked for",
    async (name) => {
      const { core, f0, link } = await stand({ linuxCompatible: true });
      await core.connect(f0, name);
      expect(link.calls[1]).toBe("connect 01:00.0");
    },
  );

  test("nothing written is nothing done; a file that is not there is ENOENT", async () => {
    const { files, f0, f1, link } = await stand();
    await files.write(f0, "tsm/connect", "");
    expect(link.take()).toEqual([]);
    expect(await errno(files.write(f1, "tsm/connect", "tsm0"))).toBe("ENOENT");
  });

  test("to a manager that is not there, or does not secure links, is ENXIO; twice is EBUSY", async () => {
    const { core, f0 } = await stand();
    await core.register({ deviceSecurity: { lock: () => {}, unlock: () => {} } });
    expect(await errno(core.connect(f0, "tsm9"))).toBe("ENXIO");
    expect(await errno(core.connect(f0, "tsm1"))).toBe("ENXIO");
    await core.connect(f0, "tsm0\n");
    expect(await errno(core.connect(f0, "tsm0"))).toBe("EBUSY");
  });

  test("asks about every function that follows, each with its virtual ones; who is refused is silently without", async () => {
    const { core, f0, f2, link, vfs } = await stand();
    link.fail = "probe 01:00.2";
    await core.connect(f0, "tsm0");
    const follow = ["01:00.1", "01:00.4", "01:00.5", "01:00.6", "01:00.2"];
    expect(link.take()).toEqual(["probe 01:00.0", "connect 01:00.0", ...follow.map((name) => `probe ${name}`)]);
    expect([core.context(f2), core.context(vfs[0]!)?.manager.name]).toEqual([undefined, "0000:01:00.0"]);
  });

  test("below a switch asks about everything, ports first, and ports are nobody's", async () => {
    const { core, up, down, end, link } = await stand();
    await core.connect(up, "tsm0");
    expect(link.take()).toEqual(["probe 02:00.0", "connect 02:00.0", "probe 03:00.0", "probe 04:00.0"]);
    expect([core.context(down), core.context(end)?.manager]).toEqual([undefined, up]);
  });

  test("asks nobody else without the TEE bit: streams alone can be secured", async () => {
    const { core, f0, link } = await stand();
    f0.hasTee = false;
    f0.hasIde = true;
    await core.connect(f0, "tsm0");
    expect(link.take()).toEqual(["probe 01:00.0", "connect 01:00.0"]);
  });

  test("that the manager does not take is ENXIO; that fails is its error, and nothing is left", async () => {
    const { core, f0, link } = await stand();
    link.fail = "probe 01:00.0";
    expect(await errno(core.connect(f0, "tsm0"))).toBe("ENXIO");
    link.take();
    link.fail = "connect 01:00.0";
    expect(await errno(core.connect(f0, "tsm0"))).toBe("EIO");
    expect(link.take()).toEqual(["probe 01:00.0", "connect 01:00.0", "remove 01:00.0"]);
    expect(core.securedFunctions).toBe(0);
  });
});

describe("disconnect", () => {
  test("of what is not connected is ENXIO; by another name EINVAL", async () => {
    const { core, f0 } = await stand();
    expect(await errno(core.disconnect(f0, "tsm0"))).toBe("ENXIO");
    await core.connect(f0, "tsm0");
    expect(await errno(core.disconnect(f0, "tsm1"))).toBe("EINVAL");
    expect(await errno(core.disconnect(f0, "tsm0\n"))).toBe("none");
  });

  test("with three virtual functions bound unbinds all in reverse, then removes all in reverse, and leaves nothing", async () => {
    const { core, f0, vfs, link } = await stand();
    await core.connect(f0, "tsm0");
    for (const [i, vf] of vfs.entries()) await core.bind(vf, VM, i);
    link.take();
    await core.disconnect(f0, "tsm0");
    expect(link.take()).toEqual([
      "unbind 01:00.6",
      "unbind 01:00.5",
      "unbind 01:00.4",
      "remove 01:00.2",
      "remove 01:00.6",
      "remove 01:00.5",
      "remove 01:00.4",
      "remove 01:00.1",
      "disconnect 01:00.0",
      "remove 01:00.0",
    ]);
    expect(core.securedFunctions).toBe(0);
  });

  test("is what a manager that goes does, function by function in reverse bus order", async () => {
    const { core, f0, f1, manager, link } = await stand();
    await core.connect(f0, "tsm0");
    await core.bind(f0, VM, 0);
    await core.bind(f1, VM, 1);
    link.take();
    await core.unregister(manager);
    expect(link.take()).toEqual([
      ...["remove 01:00.6", "remove 01:00.5", "remove 01:00.4", "remove 01:00.2"],
      ...["unbind 01:00.1", "remove 01:00.1", "unbind 01:00.0", "disconnect 01:00.0", "remove 01:00.0"],
    ]);
    expect(core.securedFunctions).toBe(0);
    await core.unregister(manager);
    expect(link.take()).toEqual([]);
  });
});

describe("bind", () => {
  test("to no guest, or of what is not secured, is EINVAL; to a second guest EBUSY; to the same one nothing", async () => {
    const { core, f0, f1, link } = await stand();
    expect(await errno(core.bind(f1, VM, 1))).toBe("EINVAL");
    await core.connect(f0, "tsm0");
    link.take();
    expect(await errno(core.bind(f1, undefined, 1))).toBe("EINVAL");
    await core.bind(f1, VM, 1);
    await core.bind(f1, VM, 2);
    expect(await errno(core.bind(f1, {}, 1))).toBe("EBUSY");
    expect(link.take()).toEqual(["bind 01:00.1"]);
  });

  test("that fails is the manager's error, and can be tried again", async () => {
    const { core, f0, f1, link } = await stand();
    await core.connect(f0, "tsm0");
    link.fail = "bind 01:00.1";
    expect(await errno(core.bind(f1, VM, 1))).toBe("EIO");
    expect(core.context(f1)?.bound).toBeUndefined();
    link.fail = undefined;
    expect(await errno(core.bind(f1, VM, 1))).toBe("none");
  });

  test("undone twice, or where nothing is, does nothing", async () => {
    const { core, f0, f1, link } = await stand();
    await core.unbind(f1);
    await core.connect(f0, "tsm0");
    await core.bind(f1, VM, 1);
    link.take();
    await core.unbind(f1);
    await core.unbind(f1);
    expect(link.take()).toEqual(["unbind 01:00.1"]);
  });
});

describe("a guest's request", () => {
  test("of information and of state is passed on; debugging never is, whoever asks", async () => {
    const { core, f0, link } = await stand();
    const request = (scope: number) => core.guestRequest(f0, { scope, request: new Uint8Array(8), responseBytes: 8 });
    expect(await errno(request(REQUEST_SCOPE.debugRead))).toBe("EINVAL");
    expect(await errno(request(REQUEST_SCOPE.info))).toBe("ENXIO");
    await core.connect(f0, "tsm0");
    expect(await errno(request(REQUEST_SCOPE.info))).toBe("ENXIO");
    await core.bind(f0, VM, 0);
    link.residue = 4;
    expect(await request(REQUEST_SCOPE.info)).toMatchObject({ residue: 4, code: 7 });
    expect(await request(REQUEST_SCOPE.stateChange)).toMatchObject({ code: 7 });
    for (const scope of [REQUEST_SCOPE.debugRead, REQUEST_SCOPE.debugWrite, 4, -1, 0.5])
      expect(await errno(request(scope))).toBe("EINVAL");
  });
});

describe("functions that come and go", () => {
  test("one that goes takes only itself along; a manager takes everything", async () => {
    const { core, f0, f1, link } = await stand();
    await core.connect(f0, "tsm0");
    await core.bind(f1, VM, 1);
    link.take();
    await core.removed(f1);
    expect(link.take()).toEqual(["unbind 01:00.1", "remove 01:00.1"]);
    await core.removed(f0);
    expect(link.take().slice(-2)).toEqual(["disconnect 01:00.0", "remove 01:00.0"]);
  });

  test("one that comes back below a connected manager is asked about again, function 0 never by itself", async () => {
    const { core, f0, f1, link } = await stand();
    await core.connect(f0, "tsm0");
    await core.removed(f1);
    link.take();
    await core.added(f1);
    expect(link.take()).toEqual(["probe 01:00.1"]);
    await core.removed(f0);
    link.take();
    await core.added(f0);
    await core.added(f1);
    expect(link.take()).toEqual([]);
  });
});

describe("mailboxes", () => {
  test("are what a managing function needs: without one ENODEV, and ENXIO for whoever would send through it", async () => {
    const { core, f0, f1 } = await stand();
    expect(() => core.openMailbox(f0)).toThrow(expect.objectContaining({ errno: "ENODEV" }));
    expect(await errno(core.transfer(f1, new Uint8Array(8)))).toBe("ENXIO");
    const mailbox = { exchange: (object: Uint8Array) => Promise.resolve(object.slice().reverse()) };
    Object.assign(f0, { mailbox });
    await core.connect(f0, "tsm0");
    expect(core.openMailbox(f0)).toBe(mailbox);
    expect(await core.transfer(f1, Uint8Array.of(1, 2))).toEqual(Uint8Array.of(2, 1));
  });
});

describe("files", () => {
  const shown = ({ files }: { files: LinkFiles }, fn: SecurityFunction): (string | undefined)[] =>
    (["tsm/connect", "tsm/dsm", "tsm/bound", "authenticated", "tsm/disconnect"] as const).map((file) =>
      files.has(fn, file) ? (files.read(fn, file) ?? "w") : undefined,
    );

  test("are all on functions that can manage, as long as a link manager is there, and say what is", async () => {
    const all = await stand();
    const { core, f0, f1, old, manager } = all;
    expect(shown(all, f0)).toEqual(["", "", "", "", "w"]);
    expect(shown(all, old)).toEqual([undefined, undefined, undefined, undefined, undefined]);
    await core.connect(f0, "tsm0");
    await core.bind(f0, VM, 0);
    expect(shown(all, f0)).toEqual(["tsm0", f0.name, "tsm0", "tsm0", "w"]);
    expect(shown(all, f1)).toEqual([undefined, f0.name, "", "tsm0", undefined]);
    await core.unregister(manager);
    expect(shown(all, f0)).toEqual([undefined, undefined, undefined, undefined, undefined]);
  });

  test("a switch may be the manager of a device below it", async () => {
    const all = await stand();
    await all.core.connect(all.up, "tsm0");
    expect(shown(all, all.end)).toEqual([undefined, all.up.name, "", "tsm0", undefined]);
  });
});

describe("calls at the same time", () => {
  test("do as if one came after the other", async () => {
    const { core, f0, link } = await stand();
    const work = [
      core.connect(f0, "tsm0"),
      core.bind(f0, VM, 0),
      core.disconnect(f0, "tsm0"),
      core.connect(f0, "tsm0"),
    ];
    expect(await Promise.all(work.map(errno))).toEqual(["none", "none", "none", "none"]);
    expect(link.calls.filter((call) => call.endsWith("01:00.0"))).toEqual(
      ["probe", "connect", "bind", "unbind", "disconnect", "remove", "probe", "connect"].map(
        (what) => `${what} 01:00.0`,
      ),
    );
  });

  test("on two devices do not wait for each other, on one they do", async () => {
    const { core, f0, f1, up, link } = await stand();
    await core.connect(f0, "tsm0");
    await core.connect(up, "tsm0");
    link.take();
    const order: string[] = [];
    let release = (): void => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    link.bind = async ({ function: fn }: FunctionContext, vm: object, id: number) => {
      order.push(`begin ${fn.name.slice(5)}`);
      if (fn === f0) await held;
      order.push(`end ${fn.name.slice(5)}`);
      return { vm, id };
    };
    const work = [core.bind(f0, VM, 0), core.bind(f1, VM, 1), core.bind(up, VM, 2)];
    for (let i = 0; i < 30; i++) await undefined;
    release();
    await Promise.all(work);
    expect(order).toEqual([
      ...["begin 01:00.0", "begin 02:00.0", "end 02:00.0", "end 01:00.0"],
      ...["begin 01:00.1", "end 01:00.1"],
    ]);
  });
});
