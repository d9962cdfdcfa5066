/**
 * What all devices under one checked mode share: findings, counts, the bound of entries, and what is known of memory.
 *
 * Promises: never throws because of a finding; memory is bounded (entries, findings, history). When the entries run out the
 * facility says so once, forgets what it had, and checks nothing more.
 * Specified by: behaviour of Linux 7.2 DMA debugging (entries, num_errors, all_errors).
 */
import type { MisuseCode, PhysAddr } from "../base/index.ts";
import type { Clock } from "../platform/index.ts";
import { ActiveCacheLines } from "./active-cache-lines.ts";
import { CallSite } from "./call-site.ts";
import { DebugFinding, type FindingSite } from "./finding.ts";

/** Physical memory from `start`, `length` bytes. */
export interface MemoryRange {
  /** First byte. */
  readonly start: PhysAddr;
  /** Bytes. */
  readonly length: number;
  /** For messages. */
  readonly name?: string;
}

/** How much is kept, what is printed, and what is known of memory. */
export interface DmaDebugOptions {
  /** Live mappings, ranges and links that can be kept, of all devices. 65,536 unless said, as in Linux. */
  readonly maxEntries?: number;
  /** Findings that are kept; more are counted only. 1024 unless said. */
  readonly maxFindings?: number;
  /** Ended mappings that are remembered for each device, so that a late use can be told from a wild one. 1024 unless said. */
  readonly history?: number;
  /** Takes the stack at every call, so that a finding names the lines of both sides. True unless said. */
  readonly callSites?: boolean;
  /** Which findings are printed. `first` unless said. All are kept either way. */
  readonly print?: "first" | "all" | "none";
  /** Where findings are printed. The console's error stream unless said. */
  readonly output?: (text: string) => void;
  /** Called at each finding, inside the call that made it; must not throw. */
  readonly onFinding?: (finding: DebugFinding) => void;
  /** For the age of live mappings in milliseconds. */
  readonly clock?: Clock;
  /** Is this RAM? Without it, {@link ramEnd} decides; without both nothing is known of it, and 14 and 15 are not found. */
  readonly isRam?: (phys: PhysAddr) => boolean;
  /** End of RAM that begins at 0 and has no holes. */
  readonly ramEnd?: PhysAddr;
  /** Memory of stacks: it must not be mapped. May be changed at any time. */
  readonly stacks?: readonly MemoryRange[];
  /** Memory of code and constants: it must not be mapped. May be changed at any time. */
  readonly text?: readonly MemoryRange[];
  /** Bytes of a cache line of the CPU. 64 unless said. */
  readonly cacheLine?: number;
  /**
   * Every address of `mapPhys` must be told to {@link DmaDebug.errorChecked} before it is unmapped, as Linux asks of its
   * drivers. False unless said: here a map that fails throws, so whoever has an address has had the error.
   */
  readonly mapErrors?: boolean;
}

/** How much is watched, and what came of it. */
export interface DebugCounters {
  /** Findings of any kind, less those that Linux does not count. */
  readonly errors: number;
  /** Entries in use: live mappings, segments, ranges and links. */
  readonly live: number;
  /** Most entries in use at once, ever. */
  readonly peak: number;
  /** Entries there can be: the `maxEntries` of the options. */
  readonly max: number;
  /** Calls that were checked. */
  readonly calls: number;
  /** Findings that were not kept. */
  readonly findingsLost: number;
}

export class DebugStore {
  readonly findings: DebugFinding[] = [];
  /** Times that `output` or `onFinding` threw: the call that was checked went on. */
  callbackErrors = 0;
  readonly activeLines: ActiveCacheLines;
  readonly history: number;
  readonly cacheLine: number;
  readonly mapErrors: boolean;
  /** No entries are left: nothing is checked any more. */
  disabled = false;
  /** Linux warns of too many overlaps only once. */
  warnedOfOverlaps = false;
  readonly #options: DmaDebugOptions;
  readonly #max: number;
  readonly #maxFindings: number;
  readonly #callSites: boolean;
  readonly #onDisabled: () => void;
  #errors = 0;
  #findingsLost = 0;
  #live = 0;
  #peak = 0;
  #calls = 0;
  #order = 0;

  constructor(options: DmaDebugOptions, onDisabled: () => void) {
    this.#options = options;
    this.#max = options.maxEntries ?? 65_536;
    this.#maxFindings = options.maxFindings ?? 1024;
    this.#callSites = options.callSites ?? true;
    this.#onDisabled = onDisabled;
    this.history = options.history ?? 1024;
    this.cacheLine = options.cacheLine ?? 64;
    this.mapErrors = options.mapErrors ?? false;
    this.activeLines = new ActiveCacheLines();
  }

  get counters(): DebugCounters {
    return {
      errors: this.#errors,
      live: this.#live,
      peak: this.#peak,
      max: this.#max,
      calls: this.#calls,
      findingsLost: this.#findingsLost,
    };
  }

  /** Calls that were checked. */
  get calls(): number {
    return this.#calls;
  }

  /** A call is going to be checked. */
  tick(): void {
    this.#calls++;
  }

  /** Larger for each record: the order in which they were made. */
  nextOrder(): number {
    return ++this.#order;
  }

  get nowMs(): number {
    return this.#options.clock?.nowMs() ?? 0;
  }

  get hasClock(): boolean {
    return this.#options.clock !== undefined;
  }

  site(): CallSite | undefined {
    return this.#callSites ? new CallSite() : undefined;
  }

  /** Room for one more entry; false: there is none, and the facility is over. */
  take(device: string): boolean {
    if (this.disabled) return false;
    if (this.#live === this.#max) {
      this.disabled = true;
      this.#report(
        "store-full",
        device,
        `all ${this.#max} entries are in use: checking stops here; raise maxEntries, or look for a leak in what live() said`,
        { maxEntries: this.#max },
        [["mapped at", this.site()]],
      );
      this.#live = 0;
      this.activeLines.clear();
      this.#onDisabled();
      return false;
    }
    this.#live++;
    if (this.#live > this.#peak) this.#peak = this.#live;
    return true;
  }

  give(entries = 1): void {
    if (!this.disabled) this.#live -= entries;
  }

  report(
    code: MisuseCode,
    device: string,
    message: string,
    details: Readonly<Record<string, number | string>>,
    sites: readonly FindingSite[],
  ): void {
    if (this.disabled) return;
    if (code !== "too-many-overlaps") this.#errors++;
    this.#report(code, device, message, details, sites);
  }

  /** Somebody said what some memory is. */
  get knowsMemory(): boolean {
    const { isRam, ramEnd, stacks, text } = this.#options;
    return isRam !== undefined || ramEnd !== undefined || stacks !== undefined || text !== undefined;
  }

  /** Is [phys, + length) RAM? `unknown` if nobody said. */
  ram(phys: number, length: number): "all" | "some" | "none" | "unknown" {
    const { isRam, ramEnd } = this.#options;
    if (isRam === undefined && ramEnd === undefined) return "unknown";
    const at = (address: number): boolean => (isRam ? isRam(address as PhysAddr) : address < ramEnd!);
    const [first, last] = [at(phys), at(phys + length - 1)];
    return first && last ? "all" : first || last ? "some" : "none";
  }

  stackAt(phys: number, length: number): MemoryRange | undefined {
    return touched(this.#options.stacks, phys, length);
  }

  textAt(phys: number, length: number): MemoryRange | undefined {
    return touched(this.#options.text, phys, length);
  }

  #report(...[code, device, message, details, sites]: Parameters<DebugStore["report"]>): void {
    const finding = new DebugFinding(code, device, message, details, sites, this.#calls);
    if (this.findings.length < this.#maxFindings) this.findings.push(finding);
    else this.#findingsLost++;
    const { print = "first", output = (text: string): void => console.error(text), onFinding } = this.#options;
    const isFirst = this.findings.length === 1 && this.#findingsLost === 0;
    try {
      if (print === "all" || (print === "first" && isFirst)) output(String(finding));
      onFinding?.(finding);
    } catch (error) {
      this.#callbackThrew(error);
    }
  }

  /** Whoever is told of findings must not break the call that was checked: said once, counted after that. */
  #callbackThrew(error: unknown): void {
    if (this.callbackErrors++ > 0) return;
    console.error(`dmalink: a callback that is told of findings threw, and was passed over: ${error}`);
  }
}

const touched = (ranges: readonly MemoryRange[] | undefined, phys: number, length: number): MemoryRange | undefined =>
  ranges?.find(({ start, length: bytes }) => start < phys + length && phys < start + bytes);
