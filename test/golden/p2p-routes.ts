/**
 * Judge of peer-to-peer routing: types, distances and states that the running kernel answered, as the tree changed.
 *
 * Only the lines about routes are judged here; mappings of peer memory belong to the whole DMA API.
 */
import { hex, PhysAddr } from "../../src/base/index.ts";
import { requesterName } from "../../src/layouts/pci/index.ts";
import { type P2pProvider, P2pRouter, type P2pState } from "../../src/p2p/index.ts";
import { type Judge, type Line, Tally } from "./judge.ts";
import { MAP_TYPES, recordedMachine } from "./p2p-machine.ts";

/** Replays what a file of the `p2p` family says about routes. */
export const judgeP2pRoutes: Judge = (header, lines) => {
  const tally = new Tally();
  const { devices, bars } = recordedMachine(header, lines);
  const router = new P2pRouter();
  const providers = new Map<number, P2pProvider>();
  const device = (line: Line, key: string): (typeof devices)[number] => devices[line[key] as number]!;

  const stateOf = (line: Line): unknown[] => {
    const state: P2pState = { type: undefined, provider: undefined };
    return (line["pages"] as string[]).map((page) => {
      const phys = PhysAddr(Number(page));
      const type = router.stateOf(state, phys, device(line, "client"));
      const { provider } = state;
      return [
        MAP_TYPES[type],
        state.type === undefined ? 0 : MAP_TYPES[state.type],
        provider ? requesterName(provider.owner.requester) : "",
        hex(provider ? provider.busAddress(phys) : 0),
      ];
    });
  };

  const answers: Readonly<Record<string, (line: Line) => Record<string, unknown>>> = {
    bar: (line) => {
      const { phys, length, busAddress } = bars.get(line["dev"] as number)!;
      return { start: hex(phys), size: hex(length), bus: hex(busAddress) };
    },
    acs: (line) => {
      const node = device(line, "dev");
      if (line["write"] !== undefined) node.writeAcs(Number(line["write"]));
      return { control: hex(node.acsControl) };
    },
    p2pAddResource: (line) => {
      add(line["dev"] as number, true);
      return { ret: 0 };
    },
    p2pInit: (line) => {
      add(line["dev"] as number, false);
      return { ret: 0 };
    },
    p2pMapType: (line) => {
      const provider = providers.get(line["provider"] as number)!;
      return {
        type: MAP_TYPES[router.mapType(provider, device(line, "client"))],
        busOffset: hex(provider.busOffset),
      };
    },
    p2pDistance: (line) => ({ ret: router.distance(device(line, "provider"), device(line, "client")) }),
    p2pState: (line) => ({ states: stateOf(line) }),
    p2pFind: (line) => {
      const owner = router.nearest([device(line, "client")]);
      return { ret: owner ? requesterName(owner.requester) : "" };
    },
  };
  const add = (index: number, published: boolean): void => {
    providers.set(index, router.add(devices[index]!, bars.get(index)!, published));
  };

  lines.forEach((line, i) => {
    const answer = answers[line["op"] as string]?.(line);
    if (answer === undefined) return;
    const differences = Object.entries(answer)
      .filter(([key, found]) => JSON.stringify(found) !== JSON.stringify(line[key]))
      .map(([key, found]) => `${key}: expected ${JSON.stringify(line[key])}, found ${JSON.stringify(found)}`);
    tally.judge(i + 2, differences);
  });
  return tally.verdict();
};
