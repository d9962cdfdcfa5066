/**
 * Page tables: a snapshot or debugfs text as a tree that opens level by level, who maps a frame, where large pages are; and what is different in a
 * second one.
 */
import type { VNode } from "preact";
import { useMemo, useState } from "preact/hooks";
import type { Mapping, TableNode, TreeItem } from "../../../analysis/index.ts";
import { bytes, count, plural } from "../../../base/index.ts";
import { Scroll } from "../frame/scroll.tsx";
import type { DeviceFacts, TablesAnswer } from "../tables/read-tables.ts";
import { openedTables, openTables, tablesFailure } from "../tables/session.ts";

const PAGE = 4096n;
/** Rows that a list shows at once. */
const MOST_ROWS = 400;

const addressOf = (page: number): string => `0x${(BigInt(page) * PAGE).toString(16)}`;
const access = (prot: number): string => `${prot & 1 ? "r" : "-"}${prot & 2 ? "w" : "-"}`;

export function TablesView(): VNode {
  const [one, other] = openedTables.value;
  return (
    <div class="page" data-tables={openedTables.value.length}>
      <p>
        <label class="button">
          Open page tables
          <input
            type="file"
            multiple
            class="hidden"
            data-for="tables"
            onChange={({ currentTarget }) => {
              void openTables([...(currentTarget.files ?? [])]);
              currentTarget.value = ""; // so that the same file can be chosen again
            }}
          />
        </label>{" "}
        <span class="quiet">
          a snapshot (NAME.snap with NAME.json) or debugfs text of iommu/intel; a second one is compared with the first
        </span>
      </p>
      {tablesFailure.value === undefined ? null : <p class="notice error">{tablesFailure.value}</p>}
      {one && other ? <Difference before={other} after={one} /> : null}
      {one ? <Tables key={one.name} answer={one} /> : null}
    </div>
  );
}

function Tables({ answer }: { readonly answer: TablesAnswer }): VNode {
  const withTables = answer.devices.filter(({ trees }) => trees.length > 0);
  const [name, choose] = useState(withTables[0]?.name);
  const device = answer.devices.find((each) => each.name === name);
  return (
    <>
      <h2>
        {answer.name}{" "}
        <span class="quiet">
          {answer.mode} mode, {plural(answer.devices.length, "device")}
        </span>
      </h2>
      <Reverse answer={answer} />
      <Scroll name="devices">
        <table>
          <thead>
            <tr>
              <th>device</th>
              <th>mode</th>
              <th class="number">domain</th>
              <th class="number">table pages</th>
              <th class="number">mapped</th>
              <th />
            </tr>
          </thead>
          <tbody>
            {answer.devices.slice(0, MOST_ROWS).map((each) => (
              <tr key={each.name}>
                <th scope="row">
                  {each.trees.length === 0 ? (
                    each.name
                  ) : (
                    <button type="button" aria-pressed={each.name === name} onClick={() => choose(each.name)}>
                      {each.name}
                    </button>
                  )}
                </th>
                <td>{each.mode}</td>
                <td class="number">{each.domainId ?? ""}</td>
                <td class="number">{count(each.tablePages)}</td>
                <td class="number">{bytes(mappedBytes(each.mappings))}</td>
                <td>
                  {each.sharedWith === undefined ? each.problems.join("; ") : `shares the tables of ${each.sharedWith}`}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
      {device ? <Device device={device} /> : null}
      <details>
        <summary>As dmalink tables prints it</summary>
        <Scroll name="tables in words">
          <pre class="words">{answer.text}</pre>
        </Scroll>
      </details>
    </>
  );
}

const mappedBytes = (mappings: readonly Mapping[]): number =>
  mappings.reduce((sum, { pages }) => sum + pages * 4096, 0);

function Device({ device }: { readonly device: DeviceFacts }): VNode {
  return (
    <section>
      <h2>{device.name}</h2>
      <LeafMap mappings={device.mappings} />
      {device.trees.map((tree, i) => (
        <div key={tree.page} class="tree">
          {device.trees.length > 1 ? <p class="quiet">{i === 0 ? "first stage" : "second stage"}</p> : null}
          <Node node={tree} open />
        </div>
      ))}
    </section>
  );
}

/** A table, its entries below it. Only what is open is in the page. */
function Node({ node, open = false }: { readonly node: TableNode; readonly open?: boolean }): VNode {
  const [isOpen, set] = useState(open);
  const tables = node.items.filter(({ kind }) => kind === "table").length;
  return (
    <details open={isOpen} onToggle={({ currentTarget }) => set(currentTarget.open)}>
      <summary>
        <b>level {node.level}</b> table at <span class="mono">{addressOf(node.page)}</span>, from{" "}
        <span class="mono">{addressOf(node.iova)}</span>
        <span class="quiet">
          {" "}
          entry {node.index}; {plural(node.items.length - tables, "run")} of leaves, {plural(tables, "table")}
        </span>
      </summary>
      {isOpen ? (
        <ul>
          {node.items.slice(0, MOST_ROWS).map((item) => (
            <li key={item.index}>
              {item.kind === "table" ? (
                <Node node={item} open={open && item === node.items.find(({ kind }) => kind === "table")} />
              ) : (
                <Item item={item} />
              )}
            </li>
          ))}
          {node.items.length > MOST_ROWS ? (
            <li class="quiet">and {count(node.items.length - MOST_ROWS)} more</li>
          ) : null}
        </ul>
      ) : null}
    </details>
  );
}

function Item({ item }: { readonly item: Exclude<TreeItem, TableNode> }): VNode {
  if (item.kind === "leaves") {
    const last = item.count > 1 ? ` to ${item.index + item.count - 1}` : "";
    return (
      <span>
        <span class="quiet">
          entry {item.index}
          {last}:
        </span>{" "}
        <span class="mono">
          {addressOf(item.iova)} → {addressOf(item.phys)}
        </span>{" "}
        {count(item.count)} × {bytes(item.leafPages * 4096)} <span class="mono">{access(item.prot)}</span>
      </span>
    );
  }
  if (item.kind === "malformed")
    return (
      <span class="bad">
        entry {item.index}: <span class="mono">0x{item.entry.toString(16)}</span> {item.reason}
      </span>
    );
  return (
    <span class="bad">
      entry {item.index}: table at <span class="mono">{addressOf(item.page)}</span> is {item.kind}
    </span>
  );
}

/** Leaves by size along the mapped addresses, gaps left out: where large pages are, and where small ones could be large. */
function LeafMap({ mappings }: { readonly mappings: readonly Mapping[] }): VNode | null {
  const total = mappings.reduce((sum, { pages }) => sum + pages, 0);
  if (total === 0) return null;
  const sizes = [...new Set(mappings.map(({ leafPages }) => leafPages))].sort((a, b) => a - b);
  let at = 0;
  const runs: { readonly x: number; width: number; readonly size: number }[] = [];
  for (const { pages, leafPages } of mappings) {
    const [x, width] = [(at / total) * 1000, (pages / total) * 1000];
    at += pages;
    const last = runs.at(-1);
    if (last && last.size === sizes.indexOf(leafPages) && x - (last.x + last.width) < 0.01) last.width += width;
    else runs.push({ x, width, size: sizes.indexOf(leafPages) });
  }
  const words = sizes.map((size) => {
    const pages = mappings.filter(({ leafPages }) => leafPages === size).reduce((sum, { pages: n }) => sum + n, 0);
    return `${bytes(pages * 4096)} by leaves of ${bytes(size * 4096)}`;
  });
  return (
    <figure class="leaves">
      <svg viewBox="0 0 1000 22" preserveAspectRatio="none" role="img" aria-label={words.join(", ")}>
        {runs.slice(0, 4000).map(({ x, width, size }) => (
          <rect key={x} x={x} y={0} width={width} height={22} class={`leaf-${Math.min(size, 3)}`} />
        ))}
      </svg>
      <figcaption class="quiet">
        {words.map((each, i) => (
          <span key={each}>
            <i class={`leaf-${Math.min(i, 3)}`} /> {each}{" "}
          </span>
        ))}
        along the mapped addresses
      </figcaption>
    </figure>
  );
}

/** Who maps a frame. */
function Reverse({ answer }: { readonly answer: TablesAnswer }): VNode {
  const [text, type] = useState("");
  const value = /^(0x)?[0-9a-f]{1,16}$/i.test(text.trim())
    ? Number(BigInt(`0x${text.trim().replace(/^0x/i, "")}`) / PAGE)
    : undefined;
  const found = useMemo(
    () =>
      value === undefined
        ? []
        : answer.devices.flatMap((device) =>
            device.mappings
              .filter(({ phys, pages }) => value >= phys && value < phys + pages)
              .map(({ iova, phys, prot }) => ({ device: device.name, iova: iova + value - phys, prot })),
          ),
    [answer, value],
  );
  return (
    <div class="tools">
      <label>
        who maps the frame at{" "}
        <input
          type="search"
          class="mono"
          placeholder="0x12345000"
          value={text}
          onInput={({ currentTarget }) => type(currentTarget.value)}
        />
      </label>
      <span role="status">
        {value === undefined
          ? ""
          : found.length === 0
            ? "nobody"
            : found
                .slice(0, 20)
                .map(({ device, iova, prot }) => `${device} at ${addressOf(iova)} (${access(prot)})`)
                .join(", ")}
      </span>
    </div>
  );
}

/** What the second snapshot maps and the first did not, and the other way round. */
function Difference({ before, after }: { readonly before: TablesAnswer; readonly after: TablesAnswer }): VNode {
  const rows = useMemo(() => differences(before, after), [before, after]);
  return (
    <section>
      <h2>
        What changed from {before.name} to {after.name}
      </h2>
      {rows.length === 0 ? <p>Nothing: every device maps the same.</p> : null}
      <Scroll name="what changed">
        <table class="dense">
          <tbody>
            {rows.slice(0, MOST_ROWS).map(({ sign, device, mapping }) => (
              <tr key={`${sign} ${device} ${mapping.iova}`} class={sign === "+" ? "added" : "gone"}>
                <td>{sign === "+" ? "new" : "gone"}</td>
                <td class="mono">{device}</td>
                <td class="mono">
                  {addressOf(mapping.iova)} → {addressOf(mapping.phys)}
                </td>
                <td class="number">{bytes(mapping.pages * 4096)}</td>
                <td class="mono">{access(mapping.prot)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
      {rows.length > MOST_ROWS ? <p class="quiet">and {count(rows.length - MOST_ROWS)} more</p> : null}
    </section>
  );
}

interface Change {
  readonly sign: "+" | "-";
  readonly device: string;
  readonly mapping: Mapping;
}

function differences(before: TablesAnswer, after: TablesAnswer): Change[] {
  const keyOf = (device: string, { iova, phys, pages, leafPages, prot }: Mapping): string =>
    `${device} ${iova} ${phys} ${pages} ${leafPages} ${prot}`;
  const all = ({ devices }: TablesAnswer): Map<string, Omit<Change, "sign">> =>
    new Map(
      devices.flatMap(({ name, mappings }) =>
        mappings.map((mapping) => [keyOf(name, mapping), { device: name, mapping }] as const),
      ),
    );
  const [old, now] = [all(before), all(after)];
  return [
    ...[...now].filter(([key]) => !old.has(key)).map(([, change]): Change => ({ sign: "+", ...change })),
    ...[...old].filter(([key]) => !now.has(key)).map(([, change]): Change => ({ sign: "-", ...change })),
  ].sort((a, b) => a.device.localeCompare(b.device) || a.mapping.iova - b.mapping.iova);
}
