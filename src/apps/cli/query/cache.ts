/**
 * Tables of recordings that were asked before, so that the next question is answered at once.
 *
 * Idea: a folder of Parquet files per recording, named for what they were made of: which file (its real path), as which it was found
 * (size, times, inode), what was asked of it (part, selection), and by which build and columns. A file that changed has another name,
 * and its old tables go when the new ones come. Nothing is kept for standard input.
 * Promises: tables are there whole or not at all; a cache that cannot be written is no error; more than {@link MOST_BYTES} are
 * not kept, those that were asked longest ago go first.
 * Specified by: the XDG Base Directory Specification ($XDG_CACHE_HOME, else ~/.cache).
 */
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { homedir } from "node:os";
import { isAbsolute, join } from "node:path";
import { fileURLToPath } from "node:url";
import { TABLES } from "../../../report/tables/index.ts";
import type { Trace } from "../../../trace/index.ts";
import { STANDARD_INPUT } from "../files/standard-input.ts";

/** All kept tables together: 4 GiB. */
const MOST_BYTES = 4 * 2 ** 30;
/** A folder that a program left half written is nobody's after a day. */
const ABANDONED_MS = 24 * 3600 * 1000;

/** What is known of a recording besides its tables. */
interface KeptFacts {
  readonly damage: Trace["damage"];
  /** What was not understood, as it is said. */
  readonly remarks: readonly string[];
}

/** When this program was built: another build may understand more of a trace, though its version is the same. */
const BUILD = statSync(fileURLToPath(import.meta.url)).mtimeMs;

const FACTS = "recording.json";

/** Where tables are kept. */
function cacheFolder(): string {
  const { XDG_CACHE_HOME: home = "" } = process.env;
  return join(isAbsolute(home) ? home : join(homedir(), ".cache"), "dmalink", "tables");
}

const digest = (text: string): string => createHash("sha256").update(text).digest("hex").slice(0, 20);

/** Tables of one recording in the cache. */
export class CacheEntry {
  readonly #root: string;
  readonly #path: string;
  readonly #file: string;
  readonly #asked: string;
  readonly #state: string;

  private constructor(root: string, path: string, asked: string) {
    this.#root = root;
    this.#path = path;
    this.#file = digest(realpathSync(path));
    this.#asked = digest(asked);
    this.#state = stateOf(path);
  }

  /** The place of the tables of `path`; `asked` is what else they depend on. `undefined`: nothing can be kept of it. */
  static of(path: string, asked: object, root: string = cacheFolder()): CacheEntry | undefined {
    try {
      if (path === STANDARD_INPUT || !statSync(path).isFile()) return undefined;
      return new CacheEntry(root, path, JSON.stringify([asked, TABLES, BUILD], bigintsToo));
    } catch {
      return undefined; // whoever opens it says why
    }
  }

  get folder(): string {
    return join(this.#root, `${this.#file}-${this.#state}-${this.#asked}`);
  }

  /** What is kept; `undefined`: nothing. */
  find(): KeptFacts | undefined {
    try {
      const facts = JSON.parse(readFileSync(join(this.folder, FACTS), "utf8")) as KeptFacts;
      const now = new Date();
      utimesSync(this.folder, now, now);
      return facts;
    } catch {
      return undefined;
    }
  }

  /** A folder to write tables to, in the cache; `undefined`: it cannot be written. */
  begin(): string | undefined {
    try {
      const folder = join(this.#root, `.${this.#file}.${process.pid}.part`);
      mkdirSync(this.#root, { recursive: true, mode: 0o700 });
      rmSync(folder, { recursive: true, force: true });
      mkdirSync(folder, { mode: 0o700 });
      return folder;
    } catch {
      return undefined;
    }
  }

  /** Keeps the tables in `folder`; where they are then. A file that changed while it was read is not kept. */
  keep(folder: string, facts: KeptFacts): string {
    try {
      if (stateOf(this.#path) !== this.#state) return folder;
      writeFileSync(join(folder, FACTS), JSON.stringify(facts));
      this.#forgetOthers(folder);
      if (existsSync(this.folder)) return folder; // another program was quicker
      renameSync(folder, this.folder);
      return this.folder;
    } catch {
      return folder;
    }
  }

  /** Tables of the same file as it was before, those that nobody finishes, and the oldest where there are too many. */
  #forgetOthers(own: string): void {
    const entries = readdirSync(this.#root).map((name) => ({ name, path: join(this.#root, name) }));
    const isOld = ({ name, path }: (typeof entries)[number]): boolean =>
      name.startsWith(".")
        ? path !== own && Date.now() - statSync(path).mtimeMs > ABANDONED_MS
        : name.startsWith(`${this.#file}-`) && !name.startsWith(`${this.#file}-${this.#state}-`);
    const [old, kept] = [
      entries.filter(isOld),
      entries.filter((entry) => !isOld(entry) && !entry.name.startsWith(".")),
    ];
    for (const { path } of old) rmSync(path, { recursive: true, force: true });
    const sized = kept.map(({ path }) => ({ path, bytes: bytesOf(path), usedMs: statSync(path).mtimeMs }));
    sized.sort((a, b) => b.usedMs - a.usedMs);
    let sum = bytesOf(own);
    for (const { path, bytes } of sized) {
      sum += bytes;
      if (sum > MOST_BYTES) rmSync(path, { recursive: true, force: true });
    }
  }
}

const bytesOf = (folder: string): number =>
  readdirSync(folder).reduce((sum, name) => sum + statSync(join(folder, name)).size, 0);

/** As which the file at `path` is found: what is written to it, or put in its place, changes this. */
function stateOf(path: string): string {
  const { dev, ino, size, mtimeNs, ctimeNs } = statSync(path, { bigint: true });
  return digest([dev, ino, size, mtimeNs, ctimeNs].join(" "));
}

const bigintsToo = (_key: string, value: unknown): unknown => (typeof value === "bigint" ? `${value}` : value);
