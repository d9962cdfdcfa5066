/** The IOTLB: what the IOMMU remembers, and whether the tables still say so. */
import type { VNode } from "preact";
import type { SpacePicture } from "../model/picture.ts";
import { Figure } from "./figure.tsx";
import { at, short } from "./words.ts";

const MOST = 48;

export function CachePicture({ spaces }: { readonly spaces: readonly SpacePicture[] }): VNode {
  const all = spaces.flatMap(({ cached, devices }) =>
    cached.map((each) => ({ ...each, device: short(devices[0] ?? "") })),
  );
  const stale = all.filter((each) => each.stale).length;
  return (
    <Figure
      title="IOTLB"
      note={stale > 0 ? `${stale} stale` : `${all.length} remembered`}
      heads={["address", "device", "memory", "rights", "stale"]}
      rows={all.map((each) => [at(each.page), each.device, at(each.target), each.rights, each.stale ? "yes" : ""])}
    >
      {all.length === 0 ? <p class="quiet">Nothing is remembered: each access walks the tables.</p> : null}
      <ul class="machine-cache">
        {all.slice(0, MOST).map(({ page, target, rights, stale: isStale, device }) => (
          <li key={`${device} ${page}`} class={isStale ? "stale" : ""}>
            {at(page)} <span>→ {at(target)}</span> <b>{isStale ? "stale" : rights}</b>
          </li>
        ))}
      </ul>
      {all.length > MOST ? <p class="quiet">… {all.length - MOST} more</p> : null}
    </Figure>
  );
}
