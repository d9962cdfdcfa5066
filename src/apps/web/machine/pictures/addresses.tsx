/**
 * What devices' addresses lead to: on the left each address space, on the right memory, and a line for every translation.
 *
 * Idea: a line is what the table or the IOTLB says now; a dashed one is not promised yet, a red one is left over. What a device did in the
 * last step runs along its line, or ends at a cross.
 */
import type { VNode } from "preact";
import { hex, bytes as inBytes, PAGE_SIZE, plural } from "../../../../base/index.ts";
import type { CellPicture, FramePicture, MachinePicture } from "../model/picture.ts";
import { WAYS } from "../model/ways.ts";
import { selected } from "../panels/selected.ts";
import { Figure, type Row } from "./figure.tsx";
import { useWidth } from "./use-width.ts";
import { at, preview, short } from "./words.ts";

const ROW = 22;
const GAP = 10;
const TOP = 24;

/** A row on the left. */
type LeftRow =
  | { readonly is: "space"; readonly y: number; readonly device: string; readonly title: string }
  | { readonly is: "range"; readonly y: number; readonly title: string; readonly waiting: boolean }
  | { readonly is: "cell"; readonly y: number; readonly device: string; readonly cell: CellPicture }
  | { readonly is: "left"; readonly y: number; readonly title: string };

function leftRows({ spaces }: MachinePicture): { readonly rows: readonly LeftRow[]; readonly height: number } {
  const rows: LeftRow[] = [];
  let y = TOP;
  for (const { devices, ranges, format } of spaces) {
    const device = devices[0] ?? "";
    rows.push({ is: "space", y, device, title: `${devices.map(short).join(", ")} · ${format ?? "not translated"}` });
    y += ROW;
    for (const { page, pages, state, cells, left } of ranges) {
      const title =
        state === "mapped"
          ? plural(pages, "page")
          : `${at(page)}, ${plural(pages, "page")}${state === "waiting" ? ", waits for a flush" : " reserved"}`;
      rows.push({ is: "range", y, title, waiting: state === "waiting" });
      y += ROW - 4;
      for (const cell of cells) {
        rows.push({ is: "cell", y, device, cell });
        y += ROW;
      }
      if (left > 0) {
        rows.push({ is: "left", y, title: `… ${plural(left, "page")} more` });
        y += ROW;
      }
      y += GAP / 2;
    }
    y += GAP;
  }
  return { rows, height: y };
}

export function AddressPicture({ picture }: { readonly picture: MachinePicture }): VNode {
  const [held, width] = useWidth<HTMLDivElement>(640);
  const { rows, height: leftHeight } = leftRows(picture);
  const { frames, framesLeft, bounces } = picture;
  const height = Math.max(leftHeight, TOP + frames.length * ROW + (framesLeft > 0 ? ROW : 0), 120);
  const boxes = Math.min(250, Math.max(128, Math.floor(width * 0.37)));
  const bend = bounces.length > 0 ? 34 : 4;
  const right = width - boxes - bend;
  const frameY = new Map(frames.map(({ page }, i) => [page, TOP + i * ROW + ROW / 2 - 1]));
  const cells = rows.flatMap((row) => (row.is === "cell" ? [row] : []));
  return (
    <Figure
      title="Addresses and memory"
      note="a line: the device reaches it"
      heads={["address", "device", "pages", "state", "rights", "memory", "IOTLB"]}
      rows={cells.map(
        ({ cell, device }): Row => [
          at(cell.page),
          short(device),
          cell.pages,
          STATES[cell.state],
          cell.rights,
          cell.target < 0 ? "" : at(cell.target),
          cell.cached ? "yes" : "",
        ],
      )}
    >
      <div ref={held} class="machine-canvas">
        {/* The table says the same; a selection is made there and by the buttons, too. */}
        <svg width={width} height={height} viewBox={`0 0 ${width} ${height}`} role="img" aria-label={spoken(picture)}>
          <text x={2} y={14} class="machine-head">
            addresses of devices
          </text>
          <text x={right} y={14} class="machine-head">
            memory
          </text>
          <Lines
            picture={picture}
            cells={cells}
            frameY={frameY}
            from={boxes}
            to={right}
            end={right + boxes}
            width={width}
          />
          {rows.map((row) => (
            <Left key={`${row.is} ${row.y}`} row={row} width={boxes} />
          ))}
          {frames.map((frame, i) => (
            <Frame key={frame.page} frame={frame} x={right} y={TOP + i * ROW} width={boxes} />
          ))}
          {framesLeft > 0 ? (
            <text x={right + 6} y={TOP + frames.length * ROW + 14} class="machine-faint">
              … {plural(framesLeft, "page")} more
            </text>
          ) : null}
          <Accesses picture={picture} rows={rows} frameY={frameY} from={boxes} to={right} />
        </svg>
      </div>
      <Legend picture={picture} />
    </Figure>
  );
}

/** Every translation, and what the bounce pool stands in for. */
function Lines(given: {
  readonly picture: MachinePicture;
  readonly cells: readonly Extract<LeftRow, { is: "cell" }>[];
  readonly frameY: ReadonlyMap<number, number>;
  readonly from: number;
  readonly to: number;
  /** Where memory ends, and the picture. */
  readonly end: number;
  readonly width: number;
}): VNode {
  const { picture, cells, frameY, from, to, end, width } = given;
  return (
    <g>
      {cells.map(({ cell, y, device }) => {
        const target = frameY.get(cell.target);
        return target === undefined ? null : (
          <path
            key={`${device} ${cell.page}`}
            d={curve(from, y + ROW / 2 - 1, to, target)}
            class={`machine-link ${cell.state}`}
          />
        );
      })}
      {picture.bounces.map(({ frame, pool }) => {
        const [out, into] = [frameY.get(frame), frameY.get(pool)];
        return out === undefined || into === undefined ? null : (
          <path
            key={`${frame} ${pool}`}
            d={`M${end} ${out} C${width + 6} ${out} ${width + 6} ${into} ${end} ${into}`}
            class="machine-link bounce"
          />
        );
      })}
    </g>
  );
}

const STATES: Readonly<Record<CellPicture["state"], string>> = {
  empty: "nothing",
  unsynced: "linked, not synced",
  mapped: "mapped",
  stale: "stale: only the IOTLB knows it",
};

function Legend({ picture }: { readonly picture: MachinePicture }): VNode {
  const states = new Set(
    picture.spaces.flatMap(({ ranges }) => ranges.flatMap(({ cells }) => cells.map(({ state }) => state))),
  );
  return (
    <ul class="machine-legend" aria-label="what the lines mean">
      {(["mapped", "unsynced", "stale", "empty"] as const).map((state) => (
        <li key={state} class={states.has(state) ? "" : "absent"}>
          <i class={state} /> {STATES[state]}
        </li>
      ))}
      {picture.bounces.length > 0 ? (
        <li>
          <i class="bounce" /> copied: the pool stands in
        </li>
      ) : null}
    </ul>
  );
}

function Left({ row, width }: { readonly row: LeftRow; readonly width: number }): VNode {
  const { y } = row;
  if (row.is === "space")
    return (
      <text x={2} y={y + 14} class="machine-space">
        {row.title}
      </text>
    );
  if (row.is === "range" || row.is === "left")
    return (
      <text x={6} y={y + 12} class={row.is === "range" && row.waiting ? "machine-waiting" : "machine-faint"}>
        {row.title}
      </text>
    );
  const { cell, device } = row;
  const isSelected = selected.value?.device === device && selected.value.page === cell.page;
  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: a short way for the mouse; the buttons' own choice of a page is for the keyboard
    <g
      class={`machine-cell ${cell.state}${isSelected ? " selected" : ""}`}
      onClick={() => {
        selected.value = { device, page: cell.page };
      }}
    >
      <rect x={6} y={y} width={width - 6} height={ROW - 3} rx={3} />
      <text x={12} y={y + 14}>
        {at(cell.page)}
        {cell.pages > 1 ? ` × ${cell.pages}` : ""}
      </text>
      <text x={width - 6} y={y + 14} class="machine-rights">
        {cell.dirty ? "dirty " : ""}
        {cell.rights}
        {cell.cached ? " ●" : ""}
      </text>
    </g>
  );
}

function Frame(given: {
  readonly frame: FramePicture;
  readonly x: number;
  readonly y: number;
  readonly width: number;
}): VNode {
  const { frame, x, y, width } = given;
  const kind = frame.kind === "ram" ? "" : frame.kind === "pool" ? "pool" : short(frame.owner ?? "");
  const room = Math.floor((width - 90) / 6.4);
  const words = [kind, preview(frame.bytes)].filter(Boolean).join(" ");
  return (
    <g class={`machine-frame ${frame.kind}`}>
      <rect x={x} y={y} width={width} height={ROW - 3} rx={3} />
      <text x={x + 6} y={y + 14}>
        {at(frame.page)}
      </text>
      <text x={x + width - 6} y={y + 14} class="machine-rights">
        {words.length > room ? `${words.slice(0, Math.max(0, room - 1))}…` : words}
      </text>
    </g>
  );
}

/** What devices did in the last step. */
function Accesses(given: {
  readonly picture: MachinePicture;
  readonly rows: readonly LeftRow[];
  readonly frameY: ReadonlyMap<number, number>;
  readonly from: number;
  readonly to: number;
}): VNode {
  const { picture, rows, frameY, from, to } = given;
  const drawn = new Map<string, VNode>();
  for (const access of picture.accesses) {
    const page = Math.floor(access.address / PAGE_SIZE);
    const row =
      rows.find(
        (each) =>
          each.is === "cell" &&
          each.device === access.device &&
          page >= each.cell.page &&
          page < each.cell.page + each.cell.pages,
      ) ?? rows.find((each) => each.is === "space" && each.device === access.device);
    if (!row) continue;
    const key = `${access.device} ${page} ${access.way}`;
    const y = row.y + ROW / 2 - 1;
    const target = row.is === "cell" && row.cell.target >= 0 ? row.cell.target + (page - row.cell.page) : page;
    const end = frameY.get(target) ?? (row.is === "cell" ? frameY.get(row.cell.target) : undefined);
    const title = `${short(access.device)} ${access.access}s ${inBytes(access.lengthBytes)} at ${hex(access.address)}: ${WAYS[access.way]}${access.reason ? ` (${access.reason})` : ""}`;
    if (access.way === "refused" || end === undefined)
      drawn.set(
        key,
        <g key={key} class={access.way === "refused" ? "machine-refused" : "machine-access"}>
          <title>{title}</title>
          <path d={`M${from} ${y} h14`} />
          {access.way === "refused" ? <path d={`M${from + 15} ${y - 5} l10 10 m0 -10 l-10 10`} /> : null}
          <text x={from + 30} y={y + 4}>
            {access.access} {access.reason ?? ""}
          </text>
        </g>,
      );
    else
      drawn.set(
        key,
        <path
          key={key}
          d={curve(from, y, to, end)}
          pathLength={100}
          class={`machine-access ${access.access} ${access.way}`}
        >
          <title>{title}</title>
        </path>,
      );
  }
  return <g>{[...drawn.values()]}</g>;
}

function curve(x1: number, y1: number, x2: number, y2: number): string {
  const middle = (x1 + x2) / 2;
  return `M${x1} ${y1} C${middle} ${y1} ${middle} ${y2} ${x2} ${y2}`;
}

/** The picture in a sentence. */
function spoken({ spaces, accesses }: MachinePicture): string {
  const cells = spaces.flatMap(({ ranges }) => ranges.flatMap((range) => range.cells));
  const of = (state: CellPicture["state"]): number => cells.filter((cell) => cell.state === state).length;
  const refused = accesses.filter(({ way }) => way === "refused").length;
  return (
    `${plural(spaces.length, "address space")}: ${of("mapped")} mapped, ${of("unsynced")} linked and not synced, ${of("stale")} stale; ` +
    `${plural(accesses.length, "access").replace(/accesss$/, "accesses")} in the last step, ${refused} refused`
  );
}
