/** The page-table tree, as the IOMMU would walk it: a column for each level, a box for each table, a line for each pointer. */
import type { VNode } from "preact";
import { useState } from "preact/hooks";
import { plural } from "../../../../base/index.ts";
import { Scroll } from "../../frame/scroll.tsx";
import type { EntryPicture, SpacePicture, TablePicture } from "../model/picture.ts";
import { Figure } from "./figure.tsx";
import { at, short } from "./words.ts";

const WIDTH = 164;
const LEAF_WIDTH = 196;
const BETWEEN = 34;
const LINE = 18;
const HEAD = 20;
const GAP = 12;
/** Entries of one table that are drawn; the table beside the picture has all. */
const MOST = 16;

interface Placed {
  readonly table: TablePicture;
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
  readonly shown: readonly EntryPicture[];
  readonly left: number;
}

/** Each level is a column, its tables from top to bottom in the order of the walk. */
function place(tables: readonly TablePicture[]): readonly Placed[] {
  const top = tables[0]?.level ?? 0;
  const ends = new Map<number, number>();
  return tables.map((table) => {
    const shown = table.entries.slice(0, MOST);
    const left = table.entries.length - shown.length + table.left;
    const height = HEAD + Math.max(1, shown.length + (left > 0 ? 1 : 0)) * LINE + 4;
    const y = ends.get(table.level) ?? 0;
    ends.set(table.level, y + height + GAP);
    const hasLeaves = shown.some(({ leaf }) => leaf);
    return {
      table,
      x: (top - table.level) * (WIDTH + BETWEEN),
      y,
      width: hasLeaves ? LEAF_WIDTH : WIDTH,
      height,
      shown,
      left,
    };
  });
}

export function TablesPicture({ spaces }: { readonly spaces: readonly SpacePicture[] }): VNode {
  const withTables = spaces.filter(({ tables }) => tables.length > 0);
  const [chosen, choose] = useState(0);
  const space = withTables[Math.min(chosen, withTables.length - 1)];
  const tables = space?.tables ?? [];
  const placed = place(tables);
  const width = Math.max(1, ...placed.map(({ x, width: own }) => x + own)) + 2;
  const height = Math.max(1, ...placed.map(({ y, height: own }) => y + own)) + 2;
  return (
    <Figure
      title="Page table"
      note={space ? `${space.format}, ${plural(tables.length + space.tablesLeft, "table")}` : "none"}
      heads={["entry", "table", "level", "value", "addresses", "leads to", "rights"]}
      rows={tables.flatMap((table) =>
        table.entries.map((entry) => [
          entry.index,
          at(table.page),
          table.level,
          entry.value,
          `${at(entry.page)}, ${plural(entry.pages, "page")}`,
          `${entry.leaf ? "memory" : "table"} ${at(entry.target)}`,
          `${entry.rights}${entry.dirty ? " dirty" : ""}`,
        ]),
      )}
    >
      {withTables.length > 1 ? (
        <label class="machine-choice">
          of{" "}
          <select value={chosen} onChange={({ currentTarget }) => choose(currentTarget.selectedIndex)}>
            {withTables.map(({ devices }, i) => (
              <option key={devices.join()} value={i}>
                {devices.map(short).join(", ")}
              </option>
            ))}
          </select>
        </label>
      ) : null}
      {space ? (
        <Scroll name="tables, level by level">
          <svg
            width={width}
            height={height}
            role="img"
            aria-label={`page table of ${space.devices.map(short).join(", ")}`}
            class="machine-tables"
          >
            <Pointers placed={placed} />
            {placed.map((each) => (
              <Table key={each.table.page} placed={each} />
            ))}
          </svg>
        </Scroll>
      ) : (
        <p class="quiet">There is no IOMMU in the way: a device's address is the physical one.</p>
      )}
      {space && space.tablesLeft > 0 ? <p class="quiet">… {plural(space.tablesLeft, "table")} more</p> : null}
    </Figure>
  );
}

function Pointers({ placed }: { readonly placed: readonly Placed[] }): VNode {
  return (
    <g>
      {placed.flatMap(({ shown, x, y, width }) =>
        shown.map(({ index, leaf, target }, i) => {
          const below = leaf ? undefined : placed.find(({ table }) => table.page === target);
          if (!below) return null;
          const [fromY, toY] = [y + HEAD + i * LINE + LINE / 2, below.y + HEAD / 2];
          const middle = (x + width + below.x) / 2;
          return (
            <path
              key={`${target} ${index}`}
              class="machine-link mapped"
              d={`M${x + width} ${fromY} C${middle} ${fromY} ${middle} ${toY} ${below.x} ${toY}`}
            />
          );
        }),
      )}
    </g>
  );
}

function Table({ placed }: { readonly placed: Placed }): VNode {
  const { table, x, y, width, height, shown, left } = placed;
  return (
    <g class="machine-table">
      <rect x={x + 0.5} y={y + 0.5} width={width} height={height} rx={4} />
      <text x={x + 8} y={y + 14} class="machine-head">
        level {table.level} · {at(table.page)}
      </text>
      {shown.map((entry, i) => (
        <text key={entry.index} x={x + 8} y={y + HEAD + i * LINE + 12} class={entry.leaf ? "machine-leaf" : ""}>
          <title>{`entry ${entry.index} = ${entry.value}: ${plural(entry.pages, "page")} from ${at(entry.page)}`}</title>
          {String(entry.index).padStart(3, " ")} →{" "}
          {entry.leaf ? `${at(entry.target)} ${entry.rights}${entry.dirty ? " dirty" : ""}` : "table"}
        </text>
      ))}
      {shown.length === 0 ? (
        <text x={x + 8} y={y + HEAD + 12} class="machine-faint">
          empty
        </text>
      ) : null}
      {left > 0 ? (
        <text x={x + 8} y={y + HEAD + shown.length * LINE + 12} class="machine-faint">
          … {left} more
        </text>
      ) : null}
    </g>
  );
}
