/** Address space over time: who held which address when. Time to the right, addresses upwards, unused stretches folded. */
import type { VNode } from "preact";
import { useEffect, useState } from "preact/hooks";
import { bytes, hex, plural } from "../../../base/index.ts";
import { move, route } from "../frame/route.ts";
import { opened, type Session } from "../frame/session.ts";
import { theme } from "../frame/theme.ts";
import { type PictureAsked, type Place, styleColour, TimePicture } from "../frame/time-picture.tsx";
import type { TimeWindow } from "../frame/time-window.ts";
import { COLOURS, type Colours, pixelOf } from "../pictures/colours.ts";
import { heightOf, type Stretch } from "../pictures/space.ts";
import { type ColourBy, KIND_NAMES, type MappingFacts } from "../trace/pictures.ts";
import { Facts } from "./facts.tsx";
import { Saves } from "./saves.tsx";
import { TimeTable } from "./time-table.tsx";

const PICTURE_PX = 460;

interface SpaceFacts {
  readonly stretches: readonly Stretch[];
  readonly height: number;
  readonly count: number;
}

export function SpaceView(): VNode | null {
  const session = opened.value;
  if (!session?.checked) return null;
  const { devices } = session.checked;
  if (devices.length === 0) return <p class="notice">No mapping was recorded, so no address was held.</p>;
  const asked = route.value.at["device"];
  const device = asked !== undefined && devices.includes(asked) ? asked : devices[0]!;
  return <Space key={device} session={session} device={device} devices={devices} />;
}

/** Which heights are shown; all of them unless the URL says otherwise. */
function heights(height: number): [low: number, high: number] {
  const { low, high } = route.value.at;
  const [a, b] = [Number(low ?? Number.NaN), Number(high ?? Number.NaN)];
  return Number.isFinite(a) && b > a ? [a, b] : [-height * 0.02, height * 1.02];
}

function Space({
  session,
  device,
  devices,
}: {
  readonly session: Session;
  readonly device: string;
  readonly devices: readonly string[];
}): VNode {
  const { worker } = session;
  const [facts, setFacts] = useState<SpaceFacts>();
  const [hovered, hover] = useState<MappingFacts>();
  const by = (BY.find((each) => each === route.value.at["by"]) ?? "kind") as ColourBy;
  useEffect(() => void worker.call("space", device).then(setFacts, () => undefined), [worker, device]);
  if (!facts) return <p class="quiet pad">…</p>;
  const [low, high] = heights(facts.height);
  const colours = coloursBy(by, COLOURS[theme.value]);
  const heightAt = (y: number): number => high - (y / PICTURE_PX) * (high - low);
  const paint = ({ fromNs, toNs, width, height }: PictureAsked) =>
    worker.call("paintSpace", {
      device,
      fromNs,
      toNs,
      width,
      rows: height,
      low,
      high,
      by,
      colours: colours.map(({ colour }) => pixelOf(colour)),
    });
  const lookUp = async (place: Place | undefined): Promise<void> => {
    if (!place) return hover(undefined);
    const within = { ns: place.withinNs, height: ((high - low) / PICTURE_PX) * 2 };
    hover(
      await worker.call("spaceAt", { device, ns: place.ns, height: heightAt(place.y), within }).catch(() => undefined),
    );
  };
  const vertical = (by: Vertical): void => moveHeights(facts.height, by);
  return (
    <div class="wide">
      <div class="tools">
        <Choices device={device} devices={devices} by={by} />
        <ul class="legend" aria-label="colours">
          {colours.map(({ name, colour }) => (
            <li key={name}>
              <i style={{ background: colour }} /> {name}
            </li>
          ))}
        </ul>
        <Saves name={`${session.overview.name}-${device}-address-space`} />
      </div>
      <Facts of={hovered} />
      <TimePicture
        name={`address space of ${device} over time: ${plural(facts.count, "piece")} in ${plural(facts.stretches.length, "stretch")}; the table below has the same in words. Keys: W, S zoom, A, D move, Q, E zoom addresses, arrows up and down move, F all`}
        height={PICTURE_PX}
        what={`${by} ${theme.value} ${low} ${high}`}
        paint={paint}
        overlay={(context, window, width) => drawSpace(context, { facts, low, high, window, width })}
        onHover={lookUp}
        onPick={lookUp}
        wheelZooms
        onVertical={vertical}
        onKey={({ key }) => verticalKey(key, vertical)}
      />
      <TimeTable session={session} device={device} />
    </div>
  );
}

interface Vertical {
  readonly pan?: number;
  readonly zoom?: number;
  readonly at?: number;
}

/** Moves or zooms the heights that are shown. */
function moveHeights(height: number, { pan = 0, zoom = 1, at = 0.5 }: Vertical): void {
  const [low, high] = heights(height);
  const around = high - at * (high - low);
  const by = pan * (high - low);
  const [next, top] = [around - (around - low) * zoom + by, around + (high - around) * zoom + by];
  const all = next <= -height * 0.02 && top >= height * 1.02;
  if (top - next > height * 1.2 || (all && zoom === 1)) return;
  move(all ? { low: undefined, high: undefined } : { low: String(Math.round(next)), high: String(Math.round(top)) });
}

const BY = ["kind", "size", "age", "task"] as const;

function verticalKey(key: string, vertical: (by: Vertical) => void): boolean {
  if (key === "q" || key === "Q") vertical({ zoom: 0.7 });
  else if (key === "e" || key === "E") vertical({ zoom: 1 / 0.7 });
  else if (key === "ArrowUp") vertical({ pan: 0.1 });
  else if (key === "ArrowDown") vertical({ pan: -0.1 });
  else if (key === "f" || key === "F") {
    move({ low: undefined, high: undefined });
    return false; // and all of the time
  } else return false;
  return true;
}

function Choices({
  device,
  devices,
  by,
}: {
  readonly device: string;
  readonly devices: readonly string[];
  readonly by: ColourBy;
}): VNode {
  return (
    <>
      <label>
        device{" "}
        <select
          onChange={({ currentTarget }) => move({ device: currentTarget.value, low: undefined, high: undefined })}
        >
          {devices.map((name) => (
            <option key={name} selected={name === device}>
              {name}
            </option>
          ))}
        </select>
      </label>
      <label>
        colour{" "}
        <select onChange={({ currentTarget }) => move({ by: currentTarget.value })}>
          {BY.map((name) => (
            <option key={name} selected={name === by}>
              {name}
            </option>
          ))}
        </select>
      </label>
    </>
  );
}

const SIZES = ["to 12 KiB", "to 60 KiB", "to 252 KiB", "to 1020 KiB", "to 4 MiB", "larger"];
const AGES = ["under 100 µs", "1 ms", "10 ms", "100 ms", "longer"];

/** Colours with their names. */
function coloursBy(
  by: ColourBy,
  { kinds, scale, live }: Colours,
): { readonly name: string; readonly colour: string }[] {
  if (by === "kind") return KIND_NAMES.map((name, i) => ({ name, colour: kinds[i]! }));
  if (by === "size") return SIZES.map((name, i) => ({ name, colour: scale[i]! }));
  if (by === "age")
    return [...AGES.map((name, i) => ({ name, colour: scale[i]! })), { name: "live at the end", colour: live }];
  return kinds.map((colour, i) => ({ name: i === 0 ? "a colour a task" : `${i + 1}`, colour }));
}

/** Addresses beside the stretches, folds between them, and the place that a finding is about. */
function drawSpace(
  context: CanvasRenderingContext2D,
  {
    facts,
    low,
    high,
    window,
    width,
  }: {
    readonly facts: SpaceFacts;
    readonly low: number;
    readonly high: number;
    readonly window: TimeWindow;
    readonly width: number;
  },
): void {
  const yOf = (height: number): number => ((high - height) / (high - low)) * PICTURE_PX;
  context.font = `10.5px ${styleColour("--mono")}`;
  const [quiet, line, ground, error] = ["--quiet", "--line-strong", "--ground", "--error"].map(styleColour) as [
    string,
    string,
    string,
    string,
  ];
  let last = Number.POSITIVE_INFINITY;
  for (const { start, end, at } of facts.stretches) {
    const [bottom, top] = [yOf(at), yOf(at + end - start)];
    context.strokeStyle = line;
    context.setLineDash([3, 3]);
    context.beginPath();
    for (const y of [bottom, top]) {
      context.moveTo(0, Math.round(y) + 0.5);
      context.lineTo(width, Math.round(y) + 0.5);
    }
    context.stroke();
    context.setLineDash([]);
    const label = (text: string, y: number): void => {
      if (y < 8 || y > PICTURE_PX || Math.abs(last - y) < 13) return;
      context.globalAlpha = 0.8;
      context.fillStyle = ground;
      context.fillRect(2, y - 9, context.measureText(text).width + 6, 12);
      context.globalAlpha = 1;
      context.fillStyle = quiet;
      context.fillText(text, 5, y);
      last = y;
    };
    label(hex(start), bottom - 3);
    label(`${hex(end)} (${bytes(end - start)})`, top + 11);
  }
  const { mark, address } = route.value.at;
  const [ns, iova] = [Number(mark ?? Number.NaN), Number(address ?? Number.NaN)];
  const height = Number.isFinite(iova) ? heightOf(facts.stretches, iova) : undefined;
  const x = Number.isFinite(ns) ? ((ns - window.fromNs) / (window.toNs - window.fromNs)) * width : undefined;
  context.strokeStyle = error;
  context.lineWidth = 1.5;
  context.beginPath();
  if (x !== undefined) {
    context.moveTo(x, 0);
    context.lineTo(x, PICTURE_PX);
  }
  if (height !== undefined) {
    context.moveTo(0, yOf(height));
    context.lineTo(width, yOf(height));
  }
  context.stroke();
  if (x === undefined || height === undefined) return;
  context.beginPath();
  context.arc(x, yOf(height), 7, 0, 2 * Math.PI);
  context.stroke();
}
