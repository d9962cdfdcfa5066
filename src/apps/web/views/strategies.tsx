/** Strategies: the same load mapped in each way, what each costs, and what it would cost at other prices. */
import type { VNode } from "preact";
import { useEffect, useState } from "preact/hooks";
import { count, duration } from "../../../base/index.ts";
import { FORMAT_NAMES, type FormatName } from "../../../layouts/pagetable/index.ts";
import { type CostModel, costOf, PUBLISHED_COST, predict, type StrategyCost } from "../../../replay/index.ts";
import { WHAT_IF, type WhatIf } from "../../../report/index.ts";
import { WorkerCalls } from "../frame/calls.ts";
import { move, route } from "../frame/route.ts";
import { Scroll } from "../frame/scroll.tsx";
import { opened } from "../frame/session.ts";
import type { CompareAnswer, CompareAsked } from "../trace/strategies.ts";
import type { TraceCalls } from "../trace/worker.ts";

/** Prices that a slider sets: their names, and the most that it goes to, nanoseconds. */
const PRICES: readonly {
  readonly key: keyof CostModel;
  readonly name: string;
  readonly most: number;
  readonly step: number;
}[] = [
  { key: "invalidationNs", name: "invalidation", most: 10_000, step: 10 },
  { key: "pteWriteNs", name: "entry write", most: 100, step: 0.5 },
  { key: "iovaOpNs", name: "address operation", most: 1000, step: 1 },
  { key: "iovaStepNs", name: "search step", most: 50, step: 0.1 },
  { key: "callNs", name: "call from user space", most: 2000, step: 10 },
];
/** Longest pieces that a device takes, bytes; none: as recorded. */
const CAPS: readonly number[] = [4096, 16_384, 65_536, 131_072, 524_288, 1_048_576];

export function StrategiesView(): VNode | null {
  const session = opened.value;
  if (!session) return null;
  return <Strategies key={session.files.trace.name} trace={session.files.trace} />;
}

/** What the URL asks for; what it does not know is as by default. */
function askedOf(trace: File): CompareAsked {
  const { iommu, mode, cap, whatif } = route.value.at;
  return {
    trace,
    iommu: FORMAT_NAMES.find((name) => name === iommu) ?? (FORMAT_NAMES[0] as FormatName),
    ...((mode === "strict" || mode === "lazy") && { mode }),
    ...(CAPS.includes(Number(cap)) && { requestCap: Number(cap) }),
    ...(whatif !== undefined && Object.hasOwn(WHAT_IF, whatif) && { whatIf: whatif as WhatIf }),
  };
}

/** Prices of the URL, above the published ones. */
function pricesOf(): CostModel {
  const given = PRICES.flatMap(({ key }) => {
    const value = Number(route.value.at[key] ?? Number.NaN);
    return Number.isFinite(value) && value >= 0 ? [[key, value]] : [];
  });
  return { ...PUBLISHED_COST, ...Object.fromEntries(given) };
}

function Strategies({ trace }: { readonly trace: File }): VNode {
  const [answer, setAnswer] = useState<CompareAnswer>();
  const [doing, say] = useState("");
  const [trouble, fail] = useState<string>();
  const { iommu, mode, cap, whatif } = route.value.at;
  useEffect(() => {
    const worker = new WorkerCalls<TraceCalls>("trace");
    let over = false;
    fail(undefined);
    worker
      .call("compare", askedOf(trace), (what, share) => {
        if (!over) say(share === undefined ? what : `${what}, ${Math.round(share * 100)} %`);
      })
      .then(
        (result) => {
          if (over) return;
          setAnswer(result);
          say("");
        },
        (error: Error) => {
          if (!over) fail(error.message);
        },
      )
      .finally(() => worker.end());
    return () => {
      over = true;
      worker.end();
    };
  }, [trace, iommu, mode, cap, whatif]);
  return (
    <div class="page" data-compared={answer && doing === "" ? "" : undefined}>
      <Machine />
      <p role="status" class="quiet small">
        {doing === "" ? " " : `replaying the load: ${doing}`}
      </p>
      {trouble === undefined ? null : <p class="notice error">{trouble}</p>}
      {answer ? <Answer answer={answer} /> : null}
    </div>
  );
}

/** The machine that the load is replayed on. */
function Machine(): VNode {
  const { iommu, mode = "", cap = "", whatif = "" } = route.value.at;
  const choice = (
    name: string,
    label: string,
    value: string,
    values: readonly (readonly [string, string])[],
  ): VNode => (
    <label>
      {label}{" "}
      <select onChange={({ currentTarget }) => move({ [name]: currentTarget.value || undefined })}>
        {values.map(([key, words]) => (
          <option key={key} value={key} selected={key === value}>
            {words}
          </option>
        ))}
      </select>
    </label>
  );
  return (
    <div class="tools">
      {choice(
        "iommu",
        "page tables",
        iommu ?? FORMAT_NAMES[0]!,
        FORMAT_NAMES.map((name) => [name, name] as const),
      )}
      {choice("mode", "invalidation", mode, [
        ["", "as recorded"],
        ["strict", "strict"],
        ["lazy", "lazy"],
      ])}
      {choice("cap", "longest piece", cap, [
        ["", "as recorded"],
        ...CAPS.map((bytes) => [String(bytes), `${bytes / 1024} KiB`] as const),
      ])}
      {choice("whatif", "what if", whatif, [
        ["", "nothing changes"],
        ...Object.keys(WHAT_IF).map((name) => [name, name] as const),
      ])}
    </div>
  );
}

function Answer({ answer }: { readonly answer: CompareAnswer }): VNode {
  const { result, changed, text, wrong } = answer;
  const prices = pricesOf();
  if (result.requests === 0) return <p>{text}</p>;
  return (
    <>
      {wrong === undefined ? null : <p class="notice error">A byte came out wrong: {wrong}</p>}
      <Costs strategies={result.strategies} prices={prices} requests={result.requests} />
      {changed ? (
        <>
          <h2>{WHAT_IF[route.value.at["whatif"] as WhatIf]?.question}</h2>
          <Costs strategies={changed.strategies} prices={prices} requests={changed.requests} />
        </>
      ) : null}
      <Prices prices={prices} />
      <h2>In words</h2>
      <Scroll name="the comparison in words">
        <pre class="words">{text}</pre>
      </Scroll>
    </>
  );
}

/** Counts of each, and its time at these prices, with a bar. */
function Costs({
  strategies,
  prices,
  requests,
}: {
  readonly strategies: readonly StrategyCost[];
  readonly prices: CostModel;
  readonly requests: number;
}): VNode {
  const times = strategies.map((cost) => predict(cost, prices));
  const most = Math.max(...times, 1);
  return (
    <Scroll name="costs of each strategy">
      <table class="costs">
        <thead>
          <tr>
            <th>strategy</th>
            <th class="number">address operations</th>
            <th class="number">search steps</th>
            <th class="number">entry writes</th>
            <th class="number">invalidations</th>
            <th class="number">a request</th>
            <th class="number">in all</th>
            <th>predicted</th>
          </tr>
        </thead>
        <tbody>
          {strategies.map((cost, i) => (
            <tr key={cost.name} title={cost.summary}>
              <th scope="row">{cost.name}</th>
              <td class="number">{count(cost.iovaOps)}</td>
              <td class="number">{count(cost.iovaSteps)}</td>
              <td class="number">{count(cost.pteWrites)}</td>
              <td class="number">{count(cost.invalidations)}</td>
              <td class="number">{duration(times[i]! / requests)}</td>
              <td class="number">{duration(times[i]!)}</td>
              <td class="bar-cell">
                <span class="parts">
                  {partsOf(cost, prices).map(({ name, ns }, part) => (
                    <i
                      key={name}
                      class={`part-${part}`}
                      style={{ width: `${(ns / most) * 100}%` }}
                      title={`${name}: ${duration(ns)}`}
                    />
                  ))}
                </span>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      <ul class="legend" aria-label="what a bar is made of">
        {PRICES.map(({ name }, i) => (
          <li key={name}>
            <i class={`part-${i}`} /> {name}
          </li>
        ))}
      </ul>
    </Scroll>
  );
}

/** What a predicted time is made of, in the order of the prices. */
const partsOf = (cost: StrategyCost, prices: CostModel): { readonly name: string; readonly ns: number }[] => {
  const counts = [cost.invalidations, cost.pteWrites, cost.iovaOps, cost.iovaSteps, cost.calls];
  return PRICES.map(({ key, name }, i) => ({ name, ns: counts[i]! * prices[key] }));
};

function Prices({ prices }: { readonly prices: CostModel }): VNode {
  const [trouble, fail] = useState<string>();
  const read = async (file: File | undefined): Promise<void> => {
    if (!file) return;
    try {
      const given = costOf(await file.text(), file.name);
      fail(undefined);
      move(Object.fromEntries(PRICES.map(({ key }) => [key, String(given[key])])));
    } catch (error) {
      fail((error as Error).message);
    }
  };
  const isChanged = PRICES.some(({ key }) => prices[key] !== PUBLISHED_COST[key]);
  return (
    <section class="prices">
      <h2>Prices</h2>
      {PRICES.map(({ key, name, most, step }) => (
        <label key={key}>
          <span>{name}</span>
          <input
            type="range"
            min={0}
            max={most}
            step={step}
            value={prices[key]}
            onInput={({ currentTarget }) => move({ [key]: currentTarget.value })}
          />
          <output>{prices[key]} ns</output>
        </label>
      ))}
      <p>
        <label class="button">
          Prices from a file
          <input
            type="file"
            class="hidden"
            accept=".json"
            onChange={({ currentTarget }) => read(currentTarget.files?.[0])}
          />
        </label>{" "}
        {isChanged ? (
          <button type="button" onClick={() => move(Object.fromEntries(PRICES.map(({ key }) => [key, undefined])))}>
            as published
          </button>
        ) : null}
      </p>
      {trouble === undefined ? null : <p class="notice error">{trouble}</p>}
    </section>
  );
}
