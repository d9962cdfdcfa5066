/** Buttons on the machine: the calls of the library, on the device and the page that are chosen. */
import type { VNode } from "preact";
import { useState } from "preact/hooks";
import type { Direction } from "../../../../base/index.ts";
import { PAGE_SIZE } from "../../../../base/index.ts";
import type { Action } from "../model/actions.ts";
import type { MachinePicture } from "../model/picture.ts";
import { at, short } from "../pictures/words.ts";
import { busy, press } from "../session.ts";
import { selected } from "./selected.ts";

/** A page of a device's addresses. */
interface Place {
  readonly device: string;
  readonly page: number;
}

const DIRECTIONS: readonly Direction[] = ["from-device", "to-device", "bidirectional"];

export function Buttons({ picture }: { readonly picture: MachinePicture }): VNode | null {
  const { devices, ranges, mappings } = picture.handles;
  const [pages, setPages] = useState(4);
  const [direction, setDirection] = useState<Direction>("from-device");
  const addresses = addressesOf(picture);
  const chosen =
    addresses.find(({ device, page }) => device === selected.value?.device && page === selected.value.page) ??
    addresses[0];
  const device = chosen?.device ?? devices[0];
  if (device === undefined) return null;
  const range =
    chosen &&
    ranges.find((each) => each.device === device && chosen.page >= each.page && chosen.page < each.page + each.pages);
  const mapping =
    chosen && mappings.find((each) => each.device === device && Math.floor(each.address / PAGE_SIZE) === chosen.page);
  const index = range && chosen ? chosen.page - range.page : 0;
  const address = mapping?.address ?? (chosen?.page ?? 0) * PAGE_SIZE;
  return (
    <section class="machine-figure" aria-label="do it yourself">
      <h2>Do it yourself</h2>
      <Choices addresses={addresses} chosen={chosen} direction={direction} choose={setDirection} />
      <Row label="device">
        <Act action={{ do: "read", device, address }}>reads</Act>
        <Act action={{ do: "write", device, address }}>writes</Act>
        <Act action={{ do: "wait", ms: 10 }}>10 ms pass</Act>
      </Row>
      <Row label="two steps">
        <Act action={{ do: "reserve", device, pages }}>reserve</Act>
        <input
          type="number"
          aria-label="pages to reserve"
          min={1}
          max={64}
          value={pages}
          onChange={({ currentTarget }) =>
            setPages(Math.max(1, Math.min(64, Math.trunc(currentTarget.valueAsNumber) || 1)))
          }
        />
        <Act action={range && { do: "link", range: range.id, index, direction }}>link</Act>
        <Act action={range && { do: "sync", range: range.id }}>sync</Act>
        <Act action={range && { do: "unlink", range: range.id, index, lazy: false }}>unlink</Act>
        <Act action={range && { do: "unlink", range: range.id, index, lazy: true }}>unlink, lazy</Act>
        <Act action={range && { do: "flush", range: range.id }}>flush</Act>
        <Act action={range && { do: "destroy", range: range.id }}>destroy</Act>
      </Row>
      <Row label="one shot">
        <Act action={{ do: "map", device, lengthBytes: PAGE_SIZE, direction }}>map a page</Act>
        <Act action={mapping && { do: "unmap", mapping: mapping.id }}>unmap</Act>
      </Row>
    </section>
  );
}

/** On which page, and for what. */
function Choices(given: {
  readonly addresses: readonly Place[];
  readonly chosen: Place | undefined;
  readonly direction: Direction;
  readonly choose: (direction: Direction) => void;
}): VNode {
  const { addresses, chosen, direction, choose } = given;
  return (
    <div class="machine-row">
      <label>
        <span class="quiet">page</span>
        <select
          value={chosen ? `${chosen.device} ${chosen.page}` : ""}
          onChange={({ currentTarget }) => {
            const { device: of, page } = addresses[currentTarget.selectedIndex]!;
            selected.value = { device: of, page };
          }}
        >
          {addresses.length === 0 ? <option value="">none yet</option> : null}
          {addresses.map(({ device: of, page }) => (
            <option key={`${of} ${page}`} value={`${of} ${page}`}>
              {short(of)} {at(page)}
            </option>
          ))}
        </select>
      </label>
      <label>
        <span class="quiet">for</span>
        <select value={direction} onChange={({ currentTarget }) => choose(DIRECTIONS[currentTarget.selectedIndex]!)}>
          {DIRECTIONS.map((each) => (
            <option key={each} value={each}>
              {each}
            </option>
          ))}
        </select>
      </label>
    </div>
  );
}

function Row({ label, children }: { readonly label: string; readonly children: unknown }): VNode {
  return (
    <fieldset class="machine-row">
      <legend class="quiet">{label}</legend>
      {children as VNode}
    </fieldset>
  );
}

/** A button that does `action`; none where there is nothing to do it to. */
const Act = ({ action, children }: { readonly action: Action | undefined; readonly children: string }): VNode => (
  <button type="button" disabled={!action || busy.value} onClick={() => action && press(action)}>
    {children}
  </button>
);

/** Every page that can be chosen. */
function addressesOf({ spaces }: MachinePicture): readonly Place[] {
  return spaces.flatMap(({ devices, ranges }) =>
    ranges.flatMap(({ cells }) => cells.map(({ page }) => ({ device: devices[0] ?? "", page }))),
  );
}
