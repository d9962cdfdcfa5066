/**
 * A picture over time that is drawn elsewhere: moves under the hand at once, and becomes sharp as soon as the worker has drawn it.
 *
 * Idea: the last picture is stretched and shifted to what is looked at now, which costs one `drawImage`; one question at a time is on its way
 * to the worker, and the answer to the last one is what stays. Perfetto's habits: W and S zoom, A and D pan, the wheel with Ctrl zooms at the pointer,
 * F shows all; dragging pans, dragging with Shift (or on the axis) selects.
 */
import { effect } from "@preact/signals";
import type { VNode } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { theme } from "./theme.ts";
import { stampOf, stepOf, ticksOf } from "./time-axis.ts";
import { look, pan, type TimeWindow, timeWindow, wholeTrace, zoom } from "./time-window.ts";

/** Height of the axis, CSS pixels. */
const AXIS_PX = 24;

/** What is asked of who draws: pixels, so that one is one on the screen. */
export interface PictureAsked extends TimeWindow {
  readonly width: number;
  readonly height: number;
  /** Pixels of the screen for one of CSS. */
  readonly scale: number;
}

/** A place under the pointer. */
export interface Place {
  readonly ns: number;
  /** From the top of the picture, below the axis; CSS pixels. */
  readonly y: number;
  /** Nanoseconds of three pixels: what a hand can mean. */
  readonly withinNs: number;
}

interface TimePictureProps {
  readonly name: string;
  /** CSS pixels, without the axis. */
  readonly height: number;
  /** Changes when the picture has to be drawn anew though the time is the same. */
  readonly what: unknown;
  paint(asked: PictureAsked): Promise<{ readonly pixels: Uint32Array }>;
  /** Lines and words on it, in CSS pixels below the axis. */
  overlay?(context: CanvasRenderingContext2D, window: TimeWindow, width: number): void;
  onHover?(place: Place | undefined): void;
  onPick?(place: Place): void;
  onSelect?(window: TimeWindow | undefined): void;
  /** Plain wheel zooms, too. */
  readonly wheelZooms?: boolean;
  /** Vertical pan and zoom of the view's own: share of the height, and factor at a share. */
  onVertical?(move: { readonly pan?: number; readonly zoom?: number; readonly at?: number }): void;
  onKey?(event: KeyboardEvent): boolean;
}

/** The colour that a style names. */
export const styleColour = (name: string): string =>
  getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export function TimePicture(props: TimePictureProps): VNode {
  const canvas = useRef<HTMLCanvasElement>(null);
  const latest = useRef(props);
  latest.current = props;
  const painter = useRef<Painter>(null);
  useEffect(() => {
    const now = new Painter(canvas.current!, () => latest.current);
    painter.current = now;
    return () => now.end();
  }, []);
  useEffect(() => painter.current?.changed(), [props.what, props.height]);
  return (
    <canvas
      ref={canvas}
      class="picture"
      style={{ height: `${props.height + AXIS_PX}px` }}
      tabIndex={0}
      role="img"
      aria-label={props.name}
    />
  );
}

/** Where a drag began, and what it does. */
interface Drag {
  readonly x: number;
  readonly y: number;
  readonly window: TimeWindow;
  readonly selects: boolean;
  moved: boolean;
  lastY: number;
}

class Painter {
  readonly #canvas: HTMLCanvasElement;
  readonly #props: () => TimePictureProps;
  readonly #ends: (() => void)[] = [];
  #picture: { readonly canvas: OffscreenCanvas; readonly window: TimeWindow } | undefined;
  #asking = false;
  #stale = true;
  #frame = 0;
  #drag: Drag | undefined;
  #selection: TimeWindow | undefined;

  constructor(canvas: HTMLCanvasElement, props: () => TimePictureProps) {
    this.#canvas = canvas;
    this.#props = props;
    const sized = new ResizeObserver(() => this.changed());
    sized.observe(canvas);
    this.#ends.push(
      () => sized.disconnect(),
      effect(() => {
        timeWindow.value;
        this.#stale = true;
        this.#wake();
      }),
      effect(() => {
        theme.value;
        queueMicrotask(() => this.changed());
      }),
    );
    this.#listen("pointerdown", (event) => this.#down(event));
    this.#listen("pointermove", (event) => this.#moved(event));
    this.#listen("pointerup", (event) => this.#up(event));
    this.#listen("pointerleave", () => this.#props().onHover?.(undefined));
    this.#listen("dblclick", (event) => zoom(0.5, this.#place(event).ns));
    this.#listen("keydown", (event) => this.#key(event));
    this.#listen("wheel", (event) => this.#wheel(event), { passive: false });
  }

  end(): void {
    cancelAnimationFrame(this.#frame);
    for (const end of this.#ends) end();
  }

  /** It has to be drawn anew. */
  changed(): void {
    this.#stale = true;
    this.#wake();
  }

  #listen<K extends keyof HTMLElementEventMap>(
    name: K,
    listener: (event: HTMLElementEventMap[K]) => void,
    options?: AddEventListenerOptions,
  ): void {
    this.#canvas.addEventListener(name, listener, options);
    this.#ends.push(() => this.#canvas.removeEventListener(name, listener));
  }

  #wake(): void {
    if (this.#frame === 0)
      this.#frame = requestAnimationFrame(() => {
        this.#frame = 0;
        this.#draw();
        if (this.#stale && !this.#asking) void this.#ask();
      });
  }

  async #ask(): Promise<void> {
    const { clientWidth, clientHeight } = this.#canvas;
    if (clientWidth === 0) return;
    const scale = Math.min(devicePixelRatio || 1, 2);
    const asked = {
      ...timeWindow.value,
      width: Math.max(1, Math.round(clientWidth * scale)),
      height: Math.max(1, Math.round((clientHeight - AXIS_PX) * scale)),
      scale,
    };
    this.#asking = true;
    this.#stale = false;
    try {
      const { pixels } = await this.#props().paint(asked);
      const canvas = new OffscreenCanvas(asked.width, asked.height);
      const bytes = new Uint8ClampedArray(pixels.buffer as ArrayBuffer);
      canvas.getContext("2d")!.putImageData(new ImageData(bytes, asked.width, asked.height), 0, 0);
      this.#picture = { canvas, window: asked };
    } catch {
      // The trace was closed meanwhile: there is nothing to draw.
    } finally {
      this.#asking = false;
      this.#canvas.dataset["drawn"] = String(Number(this.#canvas.dataset["drawn"] ?? 0) + 1);
      this.#wake();
    }
  }

  #draw(): void {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    const scale = devicePixelRatio || 1;
    const [w, h] = [Math.round(width * scale), Math.round(height * scale)];
    if (this.#canvas.width !== w || this.#canvas.height !== h) [this.#canvas.width, this.#canvas.height] = [w, h];
    const context = this.#canvas.getContext("2d")!;
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    drawInto(context, { width, height, picture: this.#picture, selection: this.#selection }, this.#props().overlay);
  }

  #place(event: MouseEvent): Place {
    const { left, top, width } = this.#canvas.getBoundingClientRect();
    const { fromNs, toNs } = timeWindow.value;
    const perPixel = (toNs - fromNs) / width;
    return { ns: fromNs + (event.clientX - left) * perPixel, y: event.clientY - top - AXIS_PX, withinNs: 3 * perPixel };
  }

  #down(event: PointerEvent): void {
    this.#canvas.setPointerCapture(event.pointerId);
    const selects = event.shiftKey || this.#place(event).y < 0;
    const { clientX: x, clientY: y } = event;
    this.#drag = { x, y, window: timeWindow.value, selects, moved: false, lastY: y };
  }

  #moved(event: PointerEvent): void {
    const drag = this.#drag;
    const place = this.#place(event);
    if (!drag) {
      this.#props().onHover?.(place.y >= 0 ? place : undefined);
      return;
    }
    if (Math.abs(event.clientX - drag.x) + Math.abs(event.clientY - drag.y) > 3) drag.moved = true;
    if (!drag.moved) return;
    if (drag.selects) {
      const from = this.#place({ clientX: drag.x, clientY: drag.y } as MouseEvent).ns;
      this.#selection = { fromNs: Math.min(from, place.ns), toNs: Math.max(from, place.ns) };
      this.#wake();
      return;
    }
    const { fromNs, toNs } = drag.window;
    const by = ((drag.x - event.clientX) / this.#canvas.clientWidth) * (toNs - fromNs);
    look({ fromNs: fromNs + by, toNs: toNs + by });
    this.#props().onVertical?.({ pan: (event.clientY - drag.lastY) / (this.#canvas.clientHeight - AXIS_PX) });
    drag.lastY = event.clientY;
  }

  #up(event: PointerEvent): void {
    const drag = this.#drag;
    this.#drag = undefined;
    if (!drag) return;
    if (drag.selects && drag.moved) {
      this.#props().onSelect?.(this.#selection);
      return;
    }
    if (drag.moved) return;
    if (this.#selection) {
      this.#selection = undefined;
      this.#props().onSelect?.(undefined);
      this.#wake();
    }
    const place = this.#place(event);
    if (place.y >= 0) this.#props().onPick?.(place);
  }

  #wheel(event: WheelEvent): void {
    const { wheelZooms, onVertical } = this.#props();
    const place = this.#place(event);
    if (event.altKey && onVertical) {
      event.preventDefault();
      onVertical({ zoom: 1.0015 ** event.deltaY, at: place.y / (this.#canvas.clientHeight - AXIS_PX) });
    } else if (
      event.ctrlKey ||
      event.metaKey ||
      (wheelZooms && !event.shiftKey && Math.abs(event.deltaY) >= Math.abs(event.deltaX))
    ) {
      event.preventDefault();
      zoom(1.0018 ** event.deltaY, place.ns);
    } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      event.preventDefault();
      pan((event.deltaX || event.deltaY) / this.#canvas.clientWidth);
    }
  }

  #key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (this.#props().onKey?.(event)) {
      event.preventDefault();
      return;
    }
    const action = KEYS[event.key.toLowerCase()];
    if (!action) return;
    event.preventDefault();
    action();
  }
}

const KEYS: Readonly<Record<string, () => void>> = {
  w: () => zoom(0.7),
  s: () => zoom(1 / 0.7),
  a: () => pan(-0.15),
  d: () => pan(0.15),
  "+": () => zoom(0.7),
  "-": () => zoom(1 / 0.7),
  f: () => look(wholeTrace()),
  home: () => look(wholeTrace()),
};

interface Drawn {
  readonly width: number;
  readonly height: number;
  readonly picture: { readonly canvas: OffscreenCanvas; readonly window: TimeWindow } | undefined;
  readonly selection: TimeWindow | undefined;
}

function drawInto(
  context: CanvasRenderingContext2D,
  { width, height, picture, selection }: Drawn,
  overlay: TimePictureProps["overlay"],
): void {
  const window = timeWindow.value;
  const xOf = (ns: number): number => ((ns - window.fromNs) / (window.toNs - window.fromNs)) * width;
  const step = stepOf(window, width / 130);
  const ticks = ticksOf(window, step);
  context.strokeStyle = styleColour("--line");
  context.lineWidth = 1;
  context.beginPath();
  for (const tick of ticks) {
    const x = Math.round(xOf(tick)) + 0.5;
    context.moveTo(x, 16);
    context.lineTo(x, height);
  }
  context.stroke();
  if (picture) {
    context.imageSmoothingEnabled = false;
    const [left, right] = [xOf(picture.window.fromNs), xOf(picture.window.toNs)];
    context.drawImage(picture.canvas, left, AXIS_PX, right - left, height - AXIS_PX);
  }
  context.fillStyle = styleColour("--quiet");
  context.font = `11px ${styleColour("--sans")}`;
  for (const tick of ticks) {
    const x = xOf(tick);
    if (x < width - 90) context.fillText(`${stampOf(tick, step)} s`, x + 4, 14);
  }
  context.save();
  context.translate(0, AXIS_PX);
  overlay?.(context, window, width);
  context.restore();
  if (!selection) return;
  const [left, right] = [xOf(selection.fromNs), xOf(selection.toNs)];
  context.fillStyle = styleColour("--accent");
  context.globalAlpha = 0.13;
  context.fillRect(left, 0, right - left, height);
  context.globalAlpha = 1;
  context.fillRect(left, 0, 1, height);
  context.fillRect(right, 0, 1, height);
}
