/**
 * What buttons do to the machine: each is a call or two of the library, and says them as a program would write them.
 *
 * Errors: those of the calls; {@link act} throws them as they are.
 */
import { type Direction, type DmaAddr, hex, PAGE_SIZE } from "../../../../base/index.ts";
import { DmaEngine, type SimulatedOpenDevice } from "../../../../hosts/simulated/index.ts";
import type { Watched } from "./watched.ts";

/** A button. Ids are those of the picture's handles; addresses and lengths bytes. */
export type Action =
  | { readonly do: "reserve"; readonly device: string; readonly pages: number }
  | { readonly do: "link"; readonly range: number; readonly index: number; readonly direction: Direction }
  | { readonly do: "sync"; readonly range: number }
  | { readonly do: "unlink"; readonly range: number; readonly index: number; readonly lazy: boolean }
  | { readonly do: "flush"; readonly range: number }
  | { readonly do: "destroy"; readonly range: number }
  | { readonly do: "map"; readonly device: string; readonly lengthBytes: number; readonly direction: Direction }
  | { readonly do: "unmap"; readonly mapping: number }
  | { readonly do: "read" | "write"; readonly device: string; readonly address: number }
  | { readonly do: "wait"; readonly ms: number };

/** What a device writes when it is told to by a button. */
const WORDS = "device was here ";

/** Does it. As a program would write it. @throws DmaError of the calls; Error: what it acts on is not there */
export function act(watched: Watched, action: Action): string {
  const { host } = watched;
  if (!host) throw new Error("there is no machine yet: a program makes one, by new SimulatedHost(…)");
  switch (action.do) {
    case "reserve": {
      const length = action.pages * PAGE_SIZE;
      const range = deviceOf(watched, action.device).dma.tryReserveIova({ length });
      if (!range)
        throw new Error(
          "nothing was reserved: the device is not translated, or there is no room (tryReserveIova gave undefined)",
        );
      return `range = dma.tryReserveIova({ length: ${length} })`;
    }
    case "link": {
      const { range } = rangeOf(watched, action.range);
      const { phys } = host.memory.allocate(PAGE_SIZE);
      const offset = action.index * PAGE_SIZE;
      range.link(offset, phys, PAGE_SIZE, action.direction);
      return `range.link(${offset}, PhysAddr(${hex(phys)}), ${PAGE_SIZE}, "${action.direction}")`;
    }
    case "sync":
      rangeOf(watched, action.range).range.sync();
      return "range.sync()";
    case "unlink": {
      const offset = action.index * PAGE_SIZE;
      rangeOf(watched, action.range).range.unlink(offset, PAGE_SIZE, { lazy: action.lazy });
      return `range.unlink(${offset}, ${PAGE_SIZE}${action.lazy ? ", { lazy: true }" : ""})`;
    }
    case "flush":
      rangeOf(watched, action.range).range.flush();
      return "range.flush()";
    case "destroy":
      rangeOf(watched, action.range).range.destroy();
      return "range.destroy()";
    case "map": {
      const { phys } = host.memory.allocate(action.lengthBytes);
      deviceOf(watched, action.device).dma.map(phys, action.lengthBytes, action.direction);
      return `mapping = dma.map(PhysAddr(${hex(phys)}), ${action.lengthBytes}, "${action.direction}")`;
    }
    case "unmap": {
      const known = watched.mappings.find(({ id }) => id === action.mapping);
      if (!known) throw new Error("there is no such mapping any more");
      known.mapping.unmap();
      return "mapping.unmap()";
    }
    case "read":
    case "write": {
      const { model } = deviceOf(watched, action.device).device;
      if (!(model instanceof DmaEngine))
        throw new Error(`${action.device} is no DmaEngine: its driver tells it what to do`);
      const bytes = new TextEncoder().encode(WORDS);
      if (action.do === "read") model.read(action.address as DmaAddr, bytes);
      else model.write(action.address as DmaAddr, bytes);
      return `engine.${action.do}(DmaAddr(${hex(action.address)}), ${action.do === "read" ? "bytes" : `/* ${JSON.stringify(WORDS)} */ bytes`})`;
    }
    case "wait":
      host.clock.advance(action.ms);
      return `host.clock.advance(${action.ms})`;
  }
}

function deviceOf({ opened }: Watched, name: string): SimulatedOpenDevice {
  const open = opened.get(name);
  if (!open) throw new Error(`no device ${name} is open`);
  return open;
}

function rangeOf({ ranges }: Watched, id: number): Watched["ranges"][number] {
  const known = ranges.find((each) => each.id === id);
  if (!known) throw new Error("there is no such range any more");
  return known;
}
