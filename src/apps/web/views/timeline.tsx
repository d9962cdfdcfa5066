/**
 * Timeline: for each device its live bytes and its requests, for each CPU its events, over one axis of time.
 *
 * Keys are Perfetto's (frame/time-picture.tsx); the arrows go from event to event on the track that was picked, "/" searches.
 */
import type { VNode } from "preact";
import { useEffect, useMemo, useState } from "preact/hooks";
import { bytes, count, duration, plural } from "../../../base/index.ts";
import { move, route } from "../frame/route.ts";
import { opened, type Session } from "../frame/session.ts";
import { theme } from "../frame/theme.ts";
import { type PictureAsked, type Place, styleColour, TimePicture } from "../frame/time-picture.tsx";
import { look, type TimeWindow, timeWindow } from "../frame/time-window.ts";
import { COLOURS, paletteOf } from "../pictures/colours.ts";
import { MARKS } from "../pictures/marks.ts";
import { KIND_NAMES, type MappingFacts, type MarkFacts, type TrackFacts } from "../trace/pictures.ts";
import { Facts } from "./facts.tsx";
import { Saves } from "./saves.tsx";
import { TimeTable } from "./time-table.tsx";

const HEIGHT = { bytes: 46, events: 24, header: 18 } as const;
const LANE_PX = 7;

/** Where a track lies, CSS pixels from the top of the picture. */
interface Placed extends TrackFacts {
  readonly top: number;
  readonly height: number;
}

export function TimelineView(): VNode | null {
  const session = opened.value;
  if (!session?.checked) return null;
  return <Timeline session={session} tracks={session.checked.tracks} />;
}

/** Tracks below each other: pinned ones first, then as the trace has them. */
function placed(tracks: readonly TrackFacts[], pinned: readonly string[]): Placed[] {
  const isPinned = ({ id }: TrackFacts): boolean => pinned.includes(id);
  let top = 0;
  return [...tracks.filter(isPinned), ...tracks.filter((track) => !isPinned(track))].map((track) => {
    const height =
      track.kind === "requests"
        ? Math.max(1, track.lanes) * LANE_PX
        : track.kind === "bytes"
          ? HEIGHT.bytes
          : HEIGHT.events;
    const at = { ...track, top: top + HEIGHT.header, height };
    top += height + HEIGHT.header + 4;
    return at;
  });
}

function Timeline({ session, tracks }: { readonly session: Session; readonly tracks: readonly TrackFacts[] }): VNode {
  const { worker } = session;
  const { pin = "", track: picked = "" } = route.value.at;
  const pinned = pin === "" ? [] : pin.split(",");
  const shown = useMemo(() => placed(tracks, pinned), [tracks, pin]);
  const height = Math.max(120, ...shown.map(({ top, height }) => top + height + 4));
  const [hovered, hover] = useState<MappingFacts | MarkFacts>();
  const [selection, select] = useState<TimeWindow>();
  const colours = COLOURS[theme.value];
  const trackAt = (y: number): Placed | undefined => shown.find(({ top, height }) => y >= top && y < top + height);
  const lookUp = async (place: Place | undefined): Promise<MappingFacts | MarkFacts | undefined> => {
    const track = place && trackAt(place.y);
    if (!place || !track) return undefined;
    const lane = Math.floor((place.y - track.top) / LANE_PX);
    return worker.call("at", { id: track.id, lane, ns: place.ns, withinNs: place.withinNs }).catch(() => undefined);
  };
  const paint = ({ fromNs, toNs, width, height, scale }: PictureAsked) =>
    worker.call("timeline", {
      fromNs,
      toNs,
      width,
      height,
      bands: shown.map(({ id, top, height }) => ({
        id,
        top: Math.round(top * scale),
        height: Math.round(height * scale),
      })),
      palette: paletteOf(colours),
    });
  const pickedTrack = shown.find(({ id }) => id === picked) ?? shown.find(({ kind }) => kind === "events") ?? shown[0];
  return (
    <div class="wide">
      <div class="tools">
        <Legend />
        <Search session={session} />
        <Saves name={`${session.overview.name}-timeline`} />
      </div>
      <Facts of={hovered} />
      <TimePicture
        name={`timeline of ${session.overview.name}: ${plural(tracks.length, "track")}; the table below has the same in words. Keys: W, S zoom, A, D move, F all, arrows from event to event`}
        height={height}
        what={`${pin} ${theme.value}`}
        paint={paint}
        overlay={(context, window, width) => drawTracks(context, shown, { picked: pickedTrack?.id, window, width })}
        onHover={async (place) => hover(await lookUp(place))}
        onPick={async (place) => {
          const track = trackAt(place.y);
          const found = await lookUp(place);
          hover(found);
          const ns = found && ("timeNs" in found ? found.timeNs : found.startNs);
          move({ track: track?.id, mark: ns === undefined ? undefined : String(ns) });
        }}
        onSelect={select}
        onKey={(event) => {
          if (event.key === "ArrowRight" || event.key === "ArrowLeft")
            void step(session, pickedTrack?.id, event.key === "ArrowRight" ? 1 : -1).then(hover);
          else if (event.key === "/") document.getElementById("search")?.focus();
          else return false;
          return true;
        }}
      />
      {selection ? <Totals session={session} window={selection} /> : null}
      <Pins tracks={tracks} pinned={pinned} />
      <TimeTable session={session} />
    </div>
  );
}

/** Goes to the event before or behind the one that is marked, on a track; what lies there. */
async function step(
  { worker }: Session,
  track: string | undefined,
  direction: 1 | -1,
): Promise<MappingFacts | MarkFacts | undefined> {
  if (track === undefined) return undefined;
  const { fromNs, toNs } = timeWindow.value;
  const at = Number(route.value.at["mark"] ?? Number.NaN);
  const from = Number.isFinite(at) ? at : (fromNs + toNs) / 2;
  const ns = await worker.call("next", { id: track, ns: from, step: direction }).catch(() => undefined);
  if (ns === undefined) return undefined;
  goTo(ns);
  return worker.call("at", { id: track, lane: 0, ns, withinNs: (toNs - fromNs) / 1e3 }).catch(() => undefined);
}

/** Marks a time, and looks there where it is not on the screen. */
function goTo(ns: number): void {
  move({ mark: String(ns) });
  const { fromNs, toNs } = timeWindow.value;
  if (ns < fromNs || ns > toNs) look({ fromNs: ns - (toNs - fromNs) / 2, toNs: ns + (toNs - fromNs) / 2 });
}

/** Names of the tracks, and the place that was picked. */
function drawTracks(
  context: CanvasRenderingContext2D,
  tracks: readonly Placed[],
  {
    picked,
    window,
    width,
  }: { readonly picked: string | undefined; readonly window: TimeWindow; readonly width: number },
): void {
  const [text, quiet, line, accent] = ["--text", "--quiet", "--line", "--accent"].map(styleColour) as [
    string,
    string,
    string,
    string,
  ];
  for (const { id, label, kind, count: n, peak, without, top } of tracks) {
    context.fillStyle = line;
    context.fillRect(0, top - HEIGHT.header, width, 1);
    context.font = `600 11px ${styleColour("--sans")}`;
    context.fillStyle = id === picked ? accent : text;
    context.fillText(label, 6, top - 5);
    const after = 6 + context.measureText(label).width + 8;
    context.font = `11px ${styleColour("--sans")}`;
    context.fillStyle = quiet;
    const more = without > 0 ? `, ${count(without)} more than lie side by side` : "";
    const words = {
      bytes: `live bytes, at most ${bytes(peak)}`,
      requests: `${plural(n, "request")}${more}`,
      events: plural(n, "event"),
    };
    context.fillText(words[kind], after, top - 5);
  }
  const mark = Number(route.value.at["mark"] ?? Number.NaN);
  if (!Number.isFinite(mark)) return;
  const x = ((mark - window.fromNs) / (window.toNs - window.fromNs)) * width;
  context.fillStyle = accent;
  context.fillRect(Math.round(x), -8, 1, 1e4);
}

function Legend(): VNode {
  const { kinds, marks } = COLOURS[theme.value];
  return (
    <ul class="legend" aria-label="colours">
      {KIND_NAMES.map((name, i) => (
        <li key={name}>
          <i style={{ background: kinds[i] }} /> {name}
        </li>
      ))}
      <li class="between" />
      {MARKS.map((name, i) => (
        <li key={name}>
          <i class="mark" style={{ background: marks[i] }} /> {name}
        </li>
      ))}
    </ul>
  );
}

/** What happened in the stretch that was selected. */
function Totals({ session, window }: { readonly session: Session; readonly window: TimeWindow }): VNode {
  const [words, say] = useState<string>("…");
  useEffect(() => {
    const asked = { ...window, most: 0 };
    Promise.all([session.worker.call("marksIn", asked), session.worker.call("mappingsIn", asked)]).then(
      ([marks, mappings]) => {
        const names = Object.entries(marks.byName).sort((a, b) => b[1] - a[1]);
        say(
          `${duration(window.toNs - window.fromNs)} selected: ${plural(marks.total, "event")} (${names.map(([name, n]) => `${name} ${count(n)}`).join(", ") || "none"}); ` +
            `${plural(mappings.total, "mapping")} of ${bytes(mappings.bytes)} live in it.`,
        );
      },
      () => undefined,
    );
  }, [session, window]);
  return (
    <p class="notice" role="status">
      {words}{" "}
      <button type="button" onClick={() => look(window)}>
        look closer
      </button>
    </p>
  );
}

/** Which tracks stand first. */
function Pins({
  tracks,
  pinned,
}: {
  readonly tracks: readonly TrackFacts[];
  readonly pinned: readonly string[];
}): VNode {
  const toggle = (id: string): void => {
    const next = pinned.includes(id) ? pinned.filter((each) => each !== id) : [...pinned, id];
    move({ pin: next.length > 0 ? next.join(",") : undefined });
  };
  return (
    <details class="pins">
      <summary>Pin tracks to the top</summary>
      {tracks.map(({ id, label, kind }) => (
        <button key={id} type="button" aria-pressed={pinned.includes(id)} onClick={() => toggle(id)}>
          {label} {kind === "events" ? "" : kind}
        </button>
      ))}
    </details>
  );
}

/** Goes to the next mapping of an address, a task, or an event of a name, behind what was found last. */
function Search({ session }: { readonly session: Session }): VNode {
  const [said, say] = useState("");
  const find = async (text: string): Promise<void> => {
    const behind = Number(route.value.at["mark"] ?? Number.NaN);
    const found = await session.worker.call("search", { text, behindNs: Number.isFinite(behind) ? behind : -1 });
    say(found === undefined ? "nothing further" : "");
    if (found === undefined) return;
    goTo(found);
  };
  return (
    <form
      class="search"
      onSubmit={(event) => {
        event.preventDefault();
        void find(new FormData(event.currentTarget).get("text") as string);
      }}
    >
      <input id="search" name="text" type="search" placeholder="/ address, task or event" aria-label="search" />
      <span role="status" class="quiet">
        {said}
      </span>
    </form>
  );
}
