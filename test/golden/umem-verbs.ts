/** Judge of regions by verbs: the software device's, with its rules (no zero-based regions, no huge pages, no other memory under a key). */
import { PAGE_SIZE } from "../../src/base/index.ts";
import {
  type MemoryRegion,
  type ProtectionDomain,
  RdmaDevice,
  type RegionChange,
} from "../../src/consumers/rdma/index.ts";
import { SimulatedMachine } from "../../src/hosts/simulated/index.ts";
import { Frames, SimulatedProcess } from "../../src/hosts/simulated/process/index.ts";
import { ACCESS } from "../../src/layouts/rdma/index.ts";
import { UserAddr } from "../../src/platform/index.ts";
import { Differences, judgeLines, type Line, type Verdict } from "./judge.ts";
import { accessOf } from "./umem-memory.ts";
import { errnoOf } from "./words.ts";

const ARENA = 2 ** 45;
/** What the software device takes. */
const SOFTWARE_ACCESS =
  ACCESS.localWrite |
  ACCESS.remoteWrite |
  ACCESS.remoteRead |
  ACCESS.remoteAtomic |
  ACCESS.windowBind |
  ACCESS.onDemand |
  ACCESS.flushGlobal |
  ACCESS.flushPersistent;

/** A part of the arena in the words of the file. */
const PART = /\+(0x[0-9a-f]+)\.\.\+(0x[0-9a-f]+) (rw|read-only)/g;

class VerbsJudge {
  readonly #differences = new Differences();
  readonly #process: SimulatedProcess;
  readonly #device = new RdmaDevice({ capabilities: { access: SOFTWARE_ACCESS, newTranslation: false } });
  readonly #domains: Readonly<Record<string, ProtectionDomain>> = {
    1: this.#device.allocateDomain(),
    2: this.#device.allocateDomain(),
    none: { number: 0xffff },
  };
  #region: MemoryRegion | undefined;
  #pinned = 0;

  constructor() {
    const { pages, memory } = new SimulatedMachine({ memoryBytes: 2 ** 26 });
    this.#process = new SimulatedProcess(new Frames({ pages, memory }), { capabilities: ["IPC_LOCK"] });
  }

  run(lines: readonly Line[]): Verdict {
    return judgeLines(lines, true, (line) => {
      this.#line(line);
      this.#pinned = (line["pinned"] as number | undefined) ?? this.#pinned;
      this.#differences.same("pinned", this.#pinned, this.#process.memory.pinned.pages);
      return this.#differences.take();
    });
  }

  #line(line: Line): void {
    switch (line["op"]) {
      case "note":
        this.#note(line["text"] as string);
        return;
      case "regMr":
        this.#compare(line, () => {
          this.#region = this.#device.register(this.#domain(line), {
            process: this.#process,
            ...translationOf(line),
            access: accessOf(line["access"]),
          });
        });
        return;
      case "reregMr":
        this.#reregister(line);
        return;
      default:
        // "deregMr", the last there is: twice in a row it names a region that is gone
        this.#differences.same(
          "ret",
          line["ret"],
          errnoOf(() => this.#device.deregister(this.#region?.key ?? 0)),
        );
    }
  }

  #note(text: string): void {
    if (text === "context closed") this.#device.close();
    for (const [, first, last, access] of text.matchAll(PART)) {
      const start = ARENA + Number(first);
      const length = ARENA + Number(last) + 1 - start;
      this.#process.memory.map({ address: UserAddr(start), length });
      if (access === "read-only") this.#process.memory.protect(UserAddr(start), length, "r");
      else for (let at = 0; at < length; at += PAGE_SIZE) this.#process.memory.touch(UserAddr(start + at), true);
    }
  }

  #compare(line: Line, call: () => void): void {
    const ret = errnoOf(call);
    this.#differences.same("ret", line["ret"], ret);
    if (ret === 0) this.#differences.same("rkey", line["rkey"], "lkey"); // one key for both sides
  }

  #domain(line: Line): ProtectionDomain {
    return this.#domains[String(line["pd"] ?? 1)]!;
  }

  /** The file does not say which region was named: that of -ENOENT with a domain that there is was none. */
  #reregister(line: Line): void {
    const flags = line["flags"] as string[];
    const change: Record<string, unknown> = {};
    if (flags.includes("pd")) change["domain"] = this.#domain(line);
    if (flags.includes("access")) change["access"] = accessOf(line["access"]);
    if (flags.includes("trans")) change["translation"] = { process: this.#process, ...translationOf(line) };
    if (flags.includes("unknown")) change["unknown"] = true;
    const isOfNone = line["ret"] === -2 && line["pd"] !== "none";
    const key = isOfNone ? 0 : this.#region!.key;
    this.#compare(line, () => this.#device.reregister(key, change as RegionChange));
    if (line["ret"] === 0) this.#differences.same("lkeyChanged", line["lkeyChanged"], this.#region!.key !== key);
  }
}

const at = (text: unknown): number => {
  const value = text as string;
  return value.startsWith("+") ? ARENA + Number(value.slice(1)) : Number(value);
};

const translationOf = (line: Line): { address: number; length: number; virt: number } => ({
  address: at(line["addr"]),
  length: Number(line["len"]),
  virt: at(line["virt"]),
});

/** Judges a file of verbs. */
export const judgeVerbs = (lines: readonly Line[]): Verdict => new VerbsJudge().run(lines);
