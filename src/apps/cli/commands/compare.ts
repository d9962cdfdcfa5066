/** `dmalink compare`: what each mapping strategy would cost for a recorded load. */
import { readFileSync } from "node:fs";
import { DmaError, hex, plural } from "../../../base/index.ts";
import { FORMAT_NAMES } from "../../../layouts/pagetable/index.ts";
import type { CompareOptions, CostModel, NvmeReplay, ReplayProgress } from "../../../replay/index.ts";
import type { WhatIf } from "../../../report/index.ts";
import { type Command, command } from "../command.ts";
import {
  BEST_EFFORT,
  file,
  flag,
  JSON_ANSWER,
  oneOf,
  PART,
  size,
  TRACE,
  wholeNumber,
  withDefault,
} from "../options.ts";
import { answerStyle, print, printJson, say } from "../terminal/print.ts";
import type { Progress } from "../terminal/progress.ts";

/** Every question there is: the compiler says when one is missing here. */
const QUESTIONS = Object.keys({ "huge-pages": 0, "iova-cache": 0, lazy: 0 } satisfies Record<WhatIf, 0>) as WhatIf[];

export const compare: Command = command({
  name: "compare",
  summary: "the same load under each mapping strategy: what each costs",
  description:
    "Takes the requests of a recorded load and maps them by every strategy on the whole stack, moves bytes through the device's " +
    "translations and checks each (of a large load a share of them; every translation is checked), and prints what each strategy costs. Exit code 1 if a byte came out wrong.",
  arguments: [TRACE],
  options: {
    iommu: withDefault(FORMAT_NAMES[0]!, oneOf("FORMAT", "page tables", FORMAT_NAMES)),
    mode: oneOf("MODE", "invalidation; as it was recorded unless given, strict where the recording does not show it", [
      "strict",
      "lazy",
    ]),
    cachingMode: flag("an IOMMU that caches absent entries, as those of virtual machines do"),
    requestCap: size("map longer requests in pieces of this, such as 128K"),
    whatIf: oneOf("QUESTION", "the same load with that changed", QUESTIONS),
    as: oneOf("DEVICE", "the same load as commands too, by the driver on a simulated controller", ["nvme"]),
    verify: oneOf(
      "WHAT",
      "besides every translation: the bytes of all requests, of a seeded share (2 GiB in all), of none; all where that is no more",
      ["all", "sample", "translate"],
    ),
    cost: file("prices for the predicted time, JSON: invalidationNs, pteWriteNs, iovaOpNs, iovaStepNs, callNs"),
    seed: withDefault("1", wholeNumber("seed of the bytes that are moved and checked", 0)),
    json: JSON_ANSWER,
    ...PART,
    bestEffort: BEST_EFFORT,
  },
  examples: [
    "dmalink compare trace.dat.gz --mode lazy",
    "dmalink compare trace.dat.gz --what-if huge-pages",
    "dmalink compare trace.dat.gz --as nvme",
  ],
  async run({ arguments: [path], options }) {
    const { readRequests, recordedMachine } = await import("../../../analysis/index.ts");
    const replay = await import("../../../replay/index.ts");
    const { compareJson, compareText, kernelCheck, WHAT_IF } = await import("../../../report/index.ts");
    const { sayDamage, sayRemarks, toldEvents, withTrace } = await import("../files/with-trace.ts");
    const { refuseUnknown, selectionOf } = await import("../files/selection.ts");
    const selected = selectionOf(options);
    const { iommu, seed, requestCap, whatIf } = options;
    const given = {
      iommu,
      seed,
      ...(options.mode && { mode: options.mode }),
      ...(requestCap !== undefined && { requestCap }),
      ...(options.verify && { verify: options.verify }),
    };
    replay.checkReplayOptions(given);
    const cost = options.cost === undefined ? undefined : readCost(options.cost, replay.costOf);
    return withTrace(path!, options, async (trace, progress) => {
      const requests = await readRequests(trace, { ...selected, progress: toldEvents(progress) });
      refuseUnknown(selected, requests.deviceNames, requests.count);
      const machine = recordedMachine(requests);
      const mode = options.mode ?? machine.mode ?? "strict";
      const how = {
        ...given,
        mode,
        cachingMode: options.cachingMode || (options.mode === undefined && machine.cachingMode),
      };
      const asked: CompareOptions = { ...how, ...(cost && { cost }), progress: told(progress) };
      const result = await resting(replay.compareInSteps(requests, { ...asked, nowNs: () => performance.now() * 1e6 }));
      const changed =
        whatIf && (await resting(replay.compareInSteps(requests, { ...asked, ...WHAT_IF[whatIf].change })));
      const nvme = options.as === "nvme" ? await replay.replayAsNvme(requests, asked) : undefined;
      progress.done();
      sayDamage(path!, trace);
      sayRemarks(path!, trace);
      const report = {
        path: path!,
        result,
        requests,
        kernel: kernelCheck(requests, result, how),
        options: { ...how, ...(whatIf && { whatIf }) },
        damage: trace.damage,
        changed,
        nvme,
        ...selected,
      };
      if (options.json) printJson(compareJson(report));
      else print(compareText(report, answerStyle()));
      const wrong = result.firstMismatch ?? changed?.firstMismatch;
      if (wrong) say(`mismatch under ${wrong.strategy}: ${replay.describeMismatch(wrong)}\n`);
      const broken = nvme && brokenNvme(nvme);
      if (broken !== undefined) say(`as NVMe: ${broken}\n`);
      return wrong || broken !== undefined ? 1 : trace.damage ? 2 : 0;
    });
  },
});

/** Works, and lets signals be heard in every rest. */
async function resting<T>(work: Generator<void, T>): Promise<T> {
  let next = work.next();
  for (; !next.done; next = work.next()) await new Promise((done) => setImmediate(done));
  return next.value;
}

/** A stage of the replay is one of the line. */
function told(progress: Progress): ReplayProgress {
  let now = "";
  return (stage, share, detail) => {
    if (stage !== now || share === 0) progress.say(stage);
    now = stage;
    progress.reached(share, detail);
  };
}

function readCost(path: string, parse: (text: string, name: string) => CostModel): CostModel {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw new DmaError("ERR_DMA_INPUT", "EIO", `cannot read ${path}: ${(error as Error).message}`, { file: path });
  }
  return parse(text, path);
}

/** What went wrong first, in words. */
function brokenNvme({ firstMismatch, failed, firstFailure, leaks }: NvmeReplay): string | undefined {
  if (firstMismatch) {
    const { command, request, phys, expected, found } = firstMismatch;
    return found === undefined
      ? `a ${command} of what is no part of request ${request}`
      : `mismatch in the ${command} of request ${request}, physical address ${hex(phys)}: expected ${hex(expected)}, found ${hex(found)}`;
  }
  if (failed > 0) return `${plural(failed, "request")} failed, the first with: ${firstFailure}`;
  return leaks[0] === undefined ? undefined : `not given back: ${leaks.join("; ")}`;
}
