/** A mapping or an event in words: what the pointer is over, and rows of the tables beside the pictures. */
import type { ComponentChildren, VNode } from "preact";
import { bytes, count, duration, hex } from "../../../base/index.ts";
import { Scroll } from "../frame/scroll.tsx";
import { stampOf } from "../frame/time-axis.ts";
import type { MappingFacts, MarkFacts } from "../trace/pictures.ts";

/** Its whole story in a line or two. */
export function Facts({ of }: { readonly of: MappingFacts | MarkFacts | undefined }): VNode {
  if (!of) return <p class="facts quiet">Point at a mapping or an event to see what it is.</p>;
  if ("name" in of)
    return (
      <p class="facts">
        <b>{of.name}</b> <span>{stampOf(of.timeNs)} s</span> <span>CPU {of.cpu}</span>
      </p>
    );
  return (
    <p class="facts">
      <b class="mono">{hex(of.iova)}</b> <span>{bytes(of.length)}</span>
      <span>
        {of.kind}
        {of.direction === undefined ? "" : `, ${of.direction}`}
        {of.segments > 1 ? `, ${count(of.segments)} segments` : ""}
      </span>
      <span>{of.device ?? "no event names the device"}</span>
      <span>{lifeWords(of)}</span>
      <span>
        {of.task}-{of.pid} on CPU {of.cpu}
      </span>
      {of.phys < 0 ? null : <span class="mono">memory {hex(of.phys)}</span>}
      {of.site === undefined ? null : <span class="mono">{of.site}</span>}
    </p>
  );
}

/** From when to when, and how long. */
function lifeWords({ startNs, endNs }: MappingFacts): string {
  if (startNs < 0)
    return endNs < 0 ? "from before the recording, never unmapped" : `from before, until ${stampOf(endNs)} s`;
  if (endNs < 0) return `mapped at ${stampOf(startNs)} s, live at the end`;
  return `${stampOf(startNs)} s, for ${duration(endNs - startNs)}`;
}

/** Mappings as a table; `children` is what stands below, as how many are not shown. */
export function MappingTable({
  rows,
  name,
  children,
}: {
  readonly rows: readonly MappingFacts[];
  readonly name: string;
  readonly children?: ComponentChildren;
}): VNode {
  return (
    <>
      <Scroll name={name}>
        <table class="dense">
          <thead>
            <tr>
              <th>mapped at</th>
              <th class="number">for</th>
              <th>device</th>
              <th>address</th>
              <th class="number">bytes</th>
              <th>how</th>
              <th>direction</th>
              <th>task</th>
              <th class="number">CPU</th>
              <th>called by</th>
            </tr>
          </thead>
          <tbody>
            {rows.map((row) => (
              <tr key={row.row}>
                <td class="mono">{row.startNs < 0 ? "before" : stampOf(row.startNs)}</td>
                <td class="number">
                  {row.endNs < 0 ? "live" : row.startNs < 0 ? "" : duration(row.endNs - row.startNs)}
                </td>
                <td class="mono">{row.device ?? "unknown"}</td>
                <td class="mono">{hex(row.iova)}</td>
                <td class="number">{count(row.length)}</td>
                <td>{row.kind}</td>
                <td>{row.direction ?? ""}</td>
                <td class="mono">
                  {row.task}-{row.pid}
                </td>
                <td class="number">{row.cpu}</td>
                <td class="mono">{row.site ?? ""}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
      {children}
    </>
  );
}
