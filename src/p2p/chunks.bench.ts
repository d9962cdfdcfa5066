/** Cutting a list of 256 pages into chunks, against asking for the state of every page as Linux's scatterlists do. */
import { type Bench, fold, HASH } from "../../bench/bench.ts";
import { PhysAddr } from "../base/index.ts";
import type { PciNode } from "../platform/index.ts";
import { chunksOf, type PhysRange } from "./chunks.ts";
import { P2pRouter, type P2pState } from "./router.ts";

const PAGES = 256;
const BAR = 0x80_0000_0000;

const endpoint = (requester: number): PciNode => ({
  requester,
  kind: "root-endpoint",
  parent: undefined,
  hostBridge: { segment: 0, vendorId: 0, deviceId: 0, cpu: { vendor: "AMD", family: 0x19 } },
  acsControl: 0,
  present: true,
  externalFacing: false,
});

/** RAM, then peer memory, then RAM again. */
const LIST: readonly PhysRange[] = Array.from({ length: PAGES }, (_, i) => ({
  phys: PhysAddr((i >= 64 && i < 192 ? BAR : 0x1000_0000) + i * 4096),
  length: 4096,
}));

function routerWith(client: PciNode): P2pRouter {
  const router = new P2pRouter();
  for (let i = 0; i < 8; i++)
    router.add(endpoint(8 + i), {
      index: 0,
      phys: PhysAddr(BAR + i * 2 ** 30),
      length: 2 ** 30,
      busAddress: BAR + i * 2 ** 30,
    });
  router.mapType(router.providers[0]!, client);
  return router;
}

export const benches: readonly Bench[] = [
  {
    name: "p2p chunks of 256 pages",
    unit: "page",
    smoke: 5_000,
    full: 10_000_000,
    contenders: [
      {
        name: "chunks",
        prepare: () => {
          const client = endpoint(1);
          const router = routerWith(client);
          return (units) => {
            let hash = HASH;
            const lists = Math.ceil(units / PAGES);
            for (let i = 0; i < lists; i++)
              for (const { type, length } of chunksOf(LIST, router, client))
                if (type !== "none") hash = fold(hash, length / 4096);
            return { units: lists * PAGES, hash };
          };
        },
      },
      {
        name: "state of every page",
        prepare: () => {
          const client = endpoint(1);
          const router = routerWith(client);
          return (units) => {
            let hash = HASH;
            const lists = Math.ceil(units / PAGES);
            for (let i = 0; i < lists; i++) {
              const state: P2pState = { type: undefined, provider: undefined };
              let pages = 0;
              for (const { phys } of LIST) if (router.stateOf(state, phys, client) !== "none") pages++;
              hash = fold(hash, pages);
            }
            return { units: lists * PAGES, hash };
          };
        },
      },
    ],
  },
];
