/**
 * The sessions of the judge of vfio-mig: two serial cards A and B, whose data files are read, written, cut and damaged.
 *
 * Two things a recording leaves out have to be found. Lines that name no device are about the one that its section is about: each
 * section (from note to note) is judged on the card that explains it, A first unless the section's title speaks of images. And
 * what was written is known by its checksum: the next part of A's image, all of it, or it with a change that the lines before tell.
 */
import { crc32 } from "node:zlib";
import type { DataFile } from "../../src/consumers/vfio/index.ts";
import { SerialCard } from "../../src/hosts/simulated/index.ts";
import { FEATURE, FEATURE_FLAGS, MIG_DATA_SIZE, MIGRATION_FEATURES, read64 } from "../../src/layouts/uapi/index.ts";
import { PlainCallerMemory } from "../models/caller-memory.ts";
import { Differences, type Line, type Tally } from "./judge.ts";
import { answerOf, codeOf, JudgedDevice } from "./vfio-mig-device.ts";

export interface Numbered {
  readonly number: number;
  readonly line: Line;
}

type Name = "A" | "B";

/** Assignments that are tried at most. */
const MOST_TRIES = 200;

/** Judges all lines with the assignment of sections to devices that gets farthest. */
export function judgeSessions(lines: readonly Numbered[], tally: Tally): void {
  const sections = sectionsOf(lines);
  let tries = 0;
  let best: readonly Name[] = [];
  let bestReach = -1;
  const search = (assigned: readonly Name[]): boolean => {
    if (tries++ > MOST_TRIES) return false;
    const reach = firstDifference(sections, assigned);
    const isClean = reach === undefined;
    if (isClean ? assigned.length > bestReach : false) [best, bestReach] = [assigned, assigned.length];
    if (!isClean) return false;
    if (assigned.length === sections.length) return true;
    const { hint } = sections[assigned.length]!;
    return search([...assigned, hint]) || search([...assigned, hint === "A" ? "B" : "A"]);
  };
  search([]);
  const all = sections.map(({ hint }, i) => best[i] ?? hint);
  play(sections, all, (number, differences) => tally.judge(number, differences));
}

interface Section {
  readonly lines: readonly Numbered[];
  readonly hint: Name;
}

function sectionsOf(lines: readonly Numbered[]): Section[] {
  const sections: { lines: Numbered[]; hint: Name }[] = [];
  for (const each of lines) {
    const title = each.line["op"] === "note" ? String(each.line["text"]) : undefined;
    if (title !== undefined || sections.length === 0)
      sections.push({ lines: [], hint: title !== undefined && /image|restore|corrupt/.test(title) ? "B" : "A" });
    sections.at(-1)!.lines.push(each);
  }
  return sections;
}

/** The number of the first line that differs in the sections that are assigned. */
function firstDifference(sections: readonly Section[], assigned: readonly Name[]): number | undefined {
  let first: number | undefined;
  play(sections.slice(0, assigned.length), assigned, (number, differences) => {
    if (differences.length > 0) first ??= number;
  });
  return first;
}

function play(
  sections: readonly Section[],
  assigned: readonly Name[],
  judge: (number: number, differences: readonly string[]) => void,
): void {
  const ports = portsOf(sections);
  const judged = new Sessions(ports);
  sections.forEach(({ lines }, i) => {
    for (const { number, line } of lines) judge(number, judged.line(line, assigned[i]!).take());
  });
}

/** How many ports the cards have: their size says it. Two unless said. */
function portsOf(sections: readonly Section[]): 1 | 2 {
  for (const { lines } of sections)
    for (const { line } of lines) if (line["op"] === "dataSize" && line["length"] === 60) return 1;
  return 2;
}

/** One card and what its program holds of it. */
class Card {
  readonly card: SerialCard;
  readonly device: JudgedDevice;
  /** The data file that was opened last, and the one before it. */
  file: DataFile | undefined;
  before: DataFile | undefined;
  /** Nothing has been asked of `file` yet. */
  isNew = false;
  /** Bytes written to `file`, also by writes that failed and count. */
  written = 0;

  constructor(ports: 1 | 2) {
    this.card = new SerialCard({ ports });
    this.device = new JudgedDevice(this.card);
  }

  opened(file: DataFile): void {
    this.before = this.file;
    this.file = file;
    this.isNew = true;
    this.written = 0;
  }
}

class Sessions {
  readonly #cards: Readonly<Record<Name, Card>>;
  /** What is written: card A's image, as it was when it was needed first, with the changes that lines tell. */
  #image: Uint8Array | undefined;
  #changes: { byte: number; xor: number }[] = [];

  constructor(ports: 1 | 2) {
    this.#cards = { A: new Card(ports), B: new Card(ports) };
  }

  line(line: Line, assigned: Name): Differences {
    const differences = new Differences();
    const name = (line["dev"] as Name | undefined) ?? assigned;
    const at = this.#cards[name];
    const { device, card } = at;
    const [bar, offset] = [line["bar"] as number, line["off"] as number];
    switch (line["op"]) {
      case "note":
        break;
      case "reset":
        device.migration!.reset();
        this.#changes = [];
        differences.same("state", line["state"], device.state);
        break;
      case "poke":
        card.ports[bar]?.write(offset, line["value"] as number);
        break;
      case "peek":
        differences.same("value", line["value"], card.ports[bar]?.read(offset));
        break;
      case "dataSize":
        this.#dataSize(line, device, differences);
        break;
      case "setState":
        this.#setState(line, at, differences);
        break;
      case "setStateReadOnlyBuffer":
        differences.same("ret", line["ret"], device.setState(codeOf(line["to"]), true).ret);
        differences.same("state", line["state"], device.state);
        break;
      case "precopyInfoV2": {
        const flags = FEATURE_FLAGS.SET | MIGRATION_FEATURES.MIG_PRECOPY_INFO_V2;
        const memory = new PlainCallerMemory();
        differences.same("ret", line["ret"], device.feature(memory, memory.add(8).address, flags, 8));
        break;
      }
      case "corrupt":
        this.#changes.push({ byte: line["byte"] as number, xor: line["xor"] as number });
        break;
      default:
        if (at.file === undefined) differences.add(`${line["op"]}: no data file has been opened`);
        else this.#file(line, at, at.file, differences);
    }
    return differences;
  }

  #setState(line: Line, at: Card, differences: Differences): void {
    const { device } = at;
    differences.same("from", line["from"], device.state);
    const { ret, fd } = device.setState(codeOf(line["to"]));
    differences.same("ret", line["ret"], ret);
    differences.same("fd", line["fd"], fd === "unchanged" ? fd : fd !== undefined);
    differences.same("state", line["state"], device.state);
    if (typeof fd === "object") at.opened(fd);
  }

  #dataSize(line: Line, device: JudgedDevice, differences: Differences): void {
    const memory = new PlainCallerMemory();
    const { address, bytes } = memory.add(FEATURE.bytes + MIG_DATA_SIZE.bytes);
    const flags = FEATURE_FLAGS.GET | MIGRATION_FEATURES.MIG_DATA_SIZE;
    differences.same("ret", line["ret"], device.feature(memory, address, flags, bytes.length));
    const length = Number(read64(bytes.subarray(FEATURE.bytes), MIG_DATA_SIZE.fields.stop_copy_length));
    differences.same("length", line["length"], length);
  }

  /** An operation on a data file. */
  #file(line: Line, at: Card, newest: DataFile, differences: Differences): void {
    // A first read of a new file that says ENODEV was of the file before it: a program may hold several.
    const isOfOlder = at.isNew && line["op"] === "readData" && line["ret"] === -19 && !newest.isOver;
    const file = isOfOlder && at.before ? at.before : newest;
    at.isNew = isOfOlder;
    switch (line["op"]) {
      case "readData": {
        const bytes = new Uint8Array(line["n"] as number);
        const ret = answerOf(() => file.read(bytes));
        differences.same("ret", line["ret"], ret);
        if (!("crc32" in line)) break;
        const found = bytes.subarray(0, Math.max(ret, 0));
        differences.same("crc32", line["crc32"], crc32(found));
        differences.same("head", line["head"], Buffer.from(found.subarray(0, 32)).toString("hex"));
        break;
      }
      case "writeData": {
        const bytes = this.#written(line, at.written);
        if (bytes === undefined) {
          differences.add("bytes with this checksum are not known");
          break;
        }
        const ret = answerOf(() => file.write(bytes));
        differences.same("ret", line["ret"], ret);
        if (ret >= 0 || ret === -14) at.written += bytes.length;
        break;
      }
      case "precopyInfo": {
        const { ret, ...info } = at.device.preCopyInfo(file, line["argsz"] as number);
        differences.same("ret", line["ret"], ret);
        for (const [field, value] of Object.entries(info))
          if (field in line) differences.same(field, line[field], value);
        break;
      }
      case "poll":
        differences.same("ret", line["ret"], file.isReady ? 1 : 0);
        break;
      case "pread":
      case "lseek":
        differences.same(
          "ret",
          line["ret"],
          answerOf(() => file.seek()),
        );
        break;
      default:
        differences.add(`unknown operation ${JSON.stringify(line["op"])}`);
    }
  }

  /** The bytes of a write, found by their checksum; undefined if none of those that programs write has it. */
  #written(line: Line, position: number): Uint8Array | undefined {
    const length = line["n"] as number;
    this.#image ??= imageOf(this.#cards.A.card);
    const image = this.#image.slice();
    for (const { byte, xor } of this.#changes) if (byte < image.length) image[byte]! ^= xor;
    const longer = new Uint8Array(image.length + length);
    longer.set(image);
    const others = ([1, 2] as const).map((ports) => imageOf(new SerialCard({ ports })));
    const pieces = [image.subarray(position), image, longer.subarray(position), longer, ...others];
    return pieces
      .map((piece) => piece.slice(0, length))
      .find((piece) => piece.length === length && crc32(piece) === line["crc32"]);
  }
}

/** What such a card gives out, without asking it. */
function imageOf({ ports }: SerialCard): Uint8Array {
  const copy = new SerialCard({ ports: ports.length as 1 | 2 });
  copy.ports.forEach((port, i) => {
    port.state.set(ports[i]!.state);
  });
  const stream = copy.takeArc("stop", "stop-copy");
  const image = new Uint8Array(copy.imageBytes);
  if (stream && "read" in stream) stream.read(image);
  return image;
}
