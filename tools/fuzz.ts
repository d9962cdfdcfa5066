/**
 * `npm run fuzz -- --minutes M [--seed N]`: damaged files through the commands that read them, each with its own budget.
 *
 * Idea: a child process takes files one after the other and says which it begins; this one watches it, so that a file that never
 * ends or takes all memory ends the child and not the run. Files are golden ones with a few changes, half of them where the lengths
 * are. What fails is kept in test/fuzz/corpus, and the seed repeats the run.
 */
import { fork } from "node:child_process";
import { copyFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { parseArgs } from "node:util";
import { gunzipSync } from "node:zlib";
import { Random } from "../src/base/index.ts";
import { BUDGET, COMMANDS_OF, faultOf } from "../test/fuzz/file-budget.ts";

const top = join(import.meta.dirname, "..");
const corpus = join(top, "test/fuzz/corpus");
const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "1" },
    seed: { type: "string", default: "1" },
    child: { type: "string" },
    from: { type: "string", default: "0" },
  },
});

type Kind = keyof typeof COMMANDS_OF;

/** Golden files to begin with, unpacked, below 1 MB. */
function samples(): { kind: Kind; name: string; bytes: Uint8Array }[] {
  const found: { kind: Kind; name: string; bytes: Uint8Array }[] = [];
  const look = (folder: string, kindOf: (name: string) => Kind | undefined): void => {
    for (const name of readdirSync(join(top, "test/golden", folder))) {
      const kind = kindOf(name);
      if (kind === undefined) continue;
      const raw = readFileSync(join(top, "test/golden", folder, name));
      const bytes = new Uint8Array(name.endsWith(".gz") ? gunzipSync(raw) : raw);
      if (bytes.length < 1_000_000) found.push({ kind, name: name.replace(/\.gz$/, ""), bytes });
    }
  };
  look("traces", (name) => (/\.(dat|txt)(\.gz)?$/.test(name) ? "trace" : undefined));
  look("attacks", (name) => (/\.(dat|txt)(\.gz)?$/.test(name) ? "trace" : undefined));
  look("cases", (name) => (/dmesg|fault|unmap|flood/.test(name) ? "log" : "trace"));
  look("snapshots", (name) => (/\.snap\.gz$/.test(name) ? "snapshot" : undefined));
  return found;
}

function mutated(original: Uint8Array, random: Random): Uint8Array {
  let bytes = original.slice();
  for (let change = 0; change <= random.below(5) && bytes.length > 0; change++) {
    const at = random.below(random.chance(1, 2) ? Math.min(bytes.length, 9000) : bytes.length);
    switch (random.below(8)) {
      case 0:
        bytes[at]! ^= 1 << random.below(8);
        break;
      case 1:
        bytes.fill(random.pick([0, 255, 0x7f, 0x80, 0x30, 0x39]), at, at + 1 + random.below(17));
        break;
      case 2:
        bytes = bytes.slice(0, at);
        break;
      case 3:
        bytes.copyWithin(at, random.below(bytes.length), bytes.length);
        break;
      case 4: {
        // A number of the text, or a word of the binary, becomes a great one.
        const great = new TextEncoder().encode(random.pick(["99999999999999999999", "0xffffffffffffffff", "-1", "0"]));
        bytes.set(great.subarray(0, bytes.length - at), at);
        break;
      }
      case 5:
        new DataView(bytes.buffer).setUint8(at, random.below(256));
        break;
      case 6: {
        const end = Math.min(bytes.length, at + 1 + random.below(2000));
        const joined = new Uint8Array(bytes.length + end - at);
        joined.set(bytes.subarray(0, end));
        joined.set(bytes.subarray(at), end);
        bytes = joined;
        break;
      }
      default: {
        const end = Math.min(bytes.length, at + 1 + random.below(64));
        const joined = new Uint8Array(bytes.length - (end - at));
        joined.set(bytes.subarray(0, at));
        joined.set(bytes.subarray(end), at);
        bytes = joined;
      }
    }
  }
  return bytes;
}

/** The child: file after file, from number `from` on. */
async function work(folder: string, seed: number, from: number): Promise<void> {
  const known = samples();
  for (let number = from; ; number++) {
    const random = Random.fromSeed(seed).fork(String(number));
    const { kind, name, bytes } = random.pick(known);
    const file = join(folder, name);
    writeFileSync(file, mutated(bytes, random));
    for (const [command, ...options] of COMMANDS_OF[kind]) {
      process.send!({ number, command, file });
      const fault = await faultOf([command!, file, ...options]);
      if (fault !== undefined) process.send!({ number, command, file, fault });
    }
    const { rss } = process.memoryUsage();
    if (rss / 2 ** 20 > BUDGET.mebibytes)
      process.send!({ number, command: "memory", file, fault: `${Math.round(rss / 2 ** 20)} MiB` });
    rmSync(file);
    process.send!({ number, done: true });
  }
}

interface Said {
  readonly number: number;
  readonly command?: string;
  readonly file?: string;
  readonly fault?: string;
  readonly done?: boolean;
}

async function watch(): Promise<number> {
  const seed = Number(values.seed);
  const until = Date.now() + Number(values.minutes) * 60_000;
  const folder = mkdtempSync(join(tmpdir(), "dmalink-fuzz-"));
  let [files, faults, next] = [0, 0, 0];
  const kept = (said: Said, fault: string): void => {
    faults++;
    const name = `${seed}-${said.number}-${said.command}-${basename(said.file!)}`;
    copyFileSync(said.file!, join(corpus, name));
    console.log(`${name}: ${fault}`);
  };
  while (Date.now() < until) {
    const child = fork(import.meta.filename, ["--child", folder, "--seed", String(seed), "--from", String(next)], {
      execArgv: ["--import", "tsx", "--max-old-space-size=700"],
      stdio: ["ignore", "ignore", "ignore", "ipc"],
    });
    let last: Said = { number: next };
    let heard = Date.now();
    child.on("message", (said: Said) => {
      heard = Date.now();
      if (said.fault !== undefined) kept(said, said.fault);
      else if (said.done) files++;
      last = said;
      next = said.number + 1;
    });
    await new Promise<void>((resolve) => {
      const timer = setInterval(() => {
        const stuck = Date.now() - heard > 12 * BUDGET.seconds * 1000;
        if (stuck && last.file !== undefined && !last.done) kept(last, "it did not end");
        if (stuck || Date.now() > until) child.kill("SIGKILL");
      }, 200);
      child.once("exit", (_code, signal) => {
        clearInterval(timer);
        if (signal !== "SIGKILL" && last.file !== undefined && !last.done) kept(last, "it ended the process");
        resolve();
      });
    });
  }
  rmSync(folder, { recursive: true, force: true });
  console.log(`${files} files, ${faults} faults; seed ${seed}`);
  return faults > 0 ? 1 : 0;
}

if (values.child !== undefined) await work(values.child, Number(values.seed), Number(values.from));
else process.exit(await watch());
