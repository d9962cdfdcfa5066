/**
 * Judge of the kind tsm: security managers come and go, devices are connected and bound, calls fail, functions are removed.
 *
 * The file's machine is rebuilt from the names and addresses of its functions, with a manager that only notes what it is asked.
 * Each line is judged by its result, the calls into the manager in their order, and what changed in the files of all functions.
 */
import { DmaError, ERRNO } from "../../src/base/index.ts";
import { type LinkCore, type LinkFile, LinkFiles, type SecurityManager } from "../../src/consumers/tee/index.ts";
import { requesterId } from "../../src/layouts/pci/index.ts";
import type { FunctionContext, LinkOperations, ManagerOperations, SecurityFunction } from "../../src/platform/index.ts";
import { Differences, type Judge, type Line, Tally } from "./judge.ts";

/** What the file's manager takes of a guest's request, and what it answers. */
const REQUEST_BYTES = 16;
const ANSWER_CODE = 0x1234;

const FILES: readonly LinkFile[] = ["tsm/connect", "tsm/dsm", "tsm/bound", "authenticated", "tsm/disconnect"];

interface JudgedFunction extends SecurityFunction {
  readonly short: string;
  hasTee: boolean;
}

/** The functions of a file, in bus order. F: one card; S: alone; UP: a switch with ports D and devices E; L: not Express. */
function functionsOf(devices: Readonly<Record<string, string>>): JudgedFunction[] {
  const kinds = { F: "endpoint", S: "endpoint", U: "upstream-port", D: "downstream-port", E: "endpoint" } as const;
  const made = new Map<string, JudgedFunction>();
  const make = (short: string): JudgedFunction | undefined => {
    const name = devices[short];
    if (name === undefined) return undefined;
    const kind = kinds[short[0] as keyof typeof kinds] as SecurityFunction["kind"];
    const parent = short.startsWith("D") ? "UP" : short.startsWith("E") ? `D${short.slice(1)}` : undefined;
    const fn = made.get(short) ?? {
      short,
      name,
      requester: requesterId(name),
      kind,
      parent: parent === undefined ? undefined : make(parent),
      hasTee: false,
      hasIde: false,
    };
    made.set(short, fn);
    return fn;
  };
  for (const short of Object.keys(devices)) make(short);
  return [...made.values()].sort((a, b) => a.requester - b.requester);
}

/** A call of the manager that fails as planned. */
class PlannedFailure extends Error {
  readonly errno: number;
  readonly code: number;

  constructor(errno: number, code = 0) {
    super(`planned: ${errno}`);
    this.errno = errno;
    this.code = code;
  }
}

class JudgedMachine {
  readonly functions: readonly JudgedFunction[];
  readonly files: LinkFiles;
  readonly core: LinkCore;
  readonly #managers = new Map<number, SecurityManager>();
  readonly #vms = new Map<number, object>();
  /** One at a time: a later plan replaces it. */
  #planned: Line | undefined;
  #calls: [string, string][] = [];
  #shown: string[][];

  constructor(devices: Readonly<Record<string, string>>) {
    this.functions = functionsOf(devices);
    this.files = new LinkFiles({ functions: () => this.functions, linuxCompatible: true });
    this.core = this.files.core;
    this.#shown = this.#show();
  }

  /** Does what a line says; its result, the manager's calls, and the files that changed. */
  async run(line: Line): Promise<Record<string, unknown>> {
    const result = await this.#do(line);
    const calls = this.#calls;
    this.#calls = [];
    const shown = this.#show();
    const sysfs = shown.filter((row, i) => JSON.stringify(row) !== JSON.stringify(this.#shown[i]));
    this.#shown = shown;
    return { ...result, ...(calls.length > 0 && { calls }), ...(sysfs.length > 0 && { sysfs }) };
  }

  async #do(line: Line): Promise<Record<string, unknown>> {
    const { op } = line;
    const fn = this.functions.find(({ short }) => short === line["dev"])!;
    switch (op) {
      case "note":
        return {};
      case "failNext":
        this.#planned = line;
        return {};
      case "setTee":
        fn.hasTee = line["on"] as boolean;
        return {};
      case "addDevice":
        await this.core.added(fn);
        return {};
      case "register":
        return this.#register(line["kind"] as string);
      case "guestRequest":
        return this.#guestRequest(fn, line);
      default:
        return { ret: await result(() => this.#call(op as string, fn, line)) };
    }
  }

  async #call(op: string, fn: JudgedFunction, line: Line): Promise<void> {
    switch (op) {
      case "unregister": {
        const manager = this.#managers.get(line["id"] as number);
        if (manager) await this.core.unregister(manager);
        return;
      }
      case "connect":
      case "disconnect":
        await this.files.write(fn, `tsm/${op}`, line["value"] as string);
        return;
      case "bind":
        await this.core.bind(fn, this.#vm(line["vm"] as number), line["id"] as number);
        return;
      case "unbind":
        await this.core.unbind(fn);
        return;
      case "removeDevice":
        await this.core.removed(fn);
        return;
      case "pf0Constructor":
        this.core.openMailbox(fn);
        return;
      case "doeTransfer":
        await this.core.transfer(fn, new Uint8Array(8));
        return;
      default:
        throw new Error(`no operation ${JSON.stringify(op)}`);
    }
  }

  async #register(kind: string): Promise<Record<string, unknown>> {
    const link = this.#operations();
    const deviceSecurity = { lock: () => {}, unlock: () => {} };
    const kinds: Readonly<Record<string, ManagerOperations | undefined>> = {
      link: { link },
      devsec: { deviceSecurity },
      both: { link, deviceSecurity },
      neither: {},
      none: undefined,
    };
    let id: number | undefined;
    const ret = await result(async () => {
      const manager = await this.core.register(kinds[kind]);
      id = manager.id;
      this.#managers.set(id, manager);
    });
    return { ret, ...(id !== undefined && { id }) };
  }

  async #guestRequest(fn: JudgedFunction, line: Line): Promise<Record<string, unknown>> {
    const request = {
      scope: line["scope"] as number,
      request: new Uint8Array(line["in"] as number),
      responseBytes: line["out"] as number,
    };
    try {
      const { residue, code } = await this.core.guestRequest(fn, request);
      return { ret: residue, code };
    } catch (error) {
      return { ret: errnoOf(error), code: error instanceof PlannedFailure ? error.code : 0 };
    }
  }

  #operations(): LinkOperations {
    const called = (call: string, fn: SecurityFunction, code = 0): void => {
      const { short } = fn as JudgedFunction;
      this.#calls.push([call, short]);
      const planned = this.#planned;
      if (planned?.["call"] !== call || (planned["dev"] !== null && planned["dev"] !== short)) return;
      this.#planned = undefined;
      throw new PlannedFailure(planned["errno"] as number, code);
    };
    return {
      probe: (fn, manager): FunctionContext | undefined => {
        try {
          called("probe", fn);
        } catch {
          return undefined;
        }
        return manager && { function: fn, manager, bound: undefined };
      },
      remove: (context) => called("remove", context.function),
      connect: (context) => called("connect", context.function),
      disconnect: (context) => called("disconnect", context.function),
      bind: (context, vm, id) => {
        called("bind", context.function);
        return { vm, id };
      },
      unbind: (context) => called("unbind", context.function),
      guestRequest: (context, { scope, request }) => {
        called("guestRequest", context.function, ANSWER_CODE + scope);
        const residue = Math.max(0, request.length - REQUEST_BYTES);
        return { residue, code: ANSWER_CODE + scope, response: new Uint8Array(0) };
      },
    };
  }

  #vm(number: number): object | undefined {
    if (number === 0) return undefined;
    let vm = this.#vms.get(number);
    if (!vm) {
      vm = {};
      this.#vms.set(number, vm);
    }
    return vm;
  }

  /** A row for each function: its name, then what each file says. */
  #show(): string[][] {
    const short = (name: string): string => this.functions.find((fn) => fn.name === name)?.short ?? name;
    return this.functions.map((fn) => [
      fn.short,
      ...FILES.map((file) => {
        if (!this.files.has(fn, file)) return "-";
        const text = this.files.read(fn, file);
        return text === undefined ? "w" : file === "tsm/dsm" ? short(text) : text;
      }),
    ]);
  }
}

const errnoOf = (error: unknown): number => {
  if (error instanceof PlannedFailure) return error.errno;
  if (error instanceof DmaError) return -ERRNO[error.errno];
  throw error;
};

async function result(work: () => Promise<void>): Promise<number> {
  try {
    await work();
    return 0;
  } catch (error) {
    return errnoOf(error);
  }
}

/** Rows in any order: the file lists functions in the order of its first line. */
const sorted = (rows: unknown): unknown => (Array.isArray(rows) ? rows.map((row) => JSON.stringify(row)).sort() : rows);

const judge: Judge = async (header, lines) => {
  const tally = new Tally();
  const machine = new JudgedMachine(header["devices"] as Readonly<Record<string, string>>);
  for (const [i, line] of lines.entries()) {
    const differences = new Differences();
    try {
      const found = await machine.run(line);
      for (const key of ["ret", "id", "code", "calls"])
        if (key in found || (key in line && line["op"] !== "bind")) {
          if (key === "id" && line["op"] !== "register") continue;
          differences.same(key, line[key], found[key]);
        }
      if ("ret" in line !== "ret" in found) differences.same("ret", line["ret"], found["ret"]);
      differences.same("sysfs", sorted(line["sysfs"]), sorted(found["sysfs"]));
    } catch (error) {
      differences.add(String(error));
    }
    tally.judge(i + 2, differences.take());
  }
  return tally.verdict();
};

export const judges: Readonly<Record<string, Judge>> = { tsm: judge };
