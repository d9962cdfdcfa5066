/** The PCI tree: root complexes, ports, devices, and which way the last requests took. */
import type { VNode } from "preact";
import { bytes, hex } from "../../../../base/index.ts";
import type { MachinePicture, NodePicture } from "../model/picture.ts";
import { WAYS } from "../model/ways.ts";
import { short } from "./words.ts";

export function TreePicture({ picture }: { readonly picture: MachinePicture }): VNode {
  const { nodes } = picture;
  return (
    <section class="machine-figure" aria-label="PCI tree">
      <h2>PCI tree</h2>
      {nodes.length === 0 ? <p class="quiet">No machine yet.</p> : <Below picture={picture} parent={undefined} />}
    </section>
  );
}

function Below({
  picture,
  parent,
}: {
  readonly picture: MachinePicture;
  readonly parent: string | undefined;
}): VNode | null {
  const own = picture.nodes.filter((node) => node.parent === parent && isOfUse(node, picture.nodes));
  return own.length === 0 ? null : (
    <ul class="machine-tree">
      {own.map((node) => {
        const last = picture.accesses.findLast(({ device }) => device === node.name);
        return (
          <li key={node.name}>
            <span class={`machine-node ${node.kind}${last ? (last.way === "refused" ? " refused" : " busy") : ""}`}>
              <b>{short(node.name)}</b> <small>{KINDS[node.kind]}</small>
              {node.bars.map(({ index, phys, lengthBytes }) => (
                <small key={index}>
                  BAR {index} at {hex(phys)}, {bytes(lengthBytes)}
                </small>
              ))}
              {node.redirects ? <small class="machine-redirects">ACS: sends peers up to the root</small> : null}
              {last ? (
                <small class="machine-way">
                  {last.access}s: {WAYS[last.way]}
                </small>
              ) : null}
            </span>
            <Below picture={picture} parent={node.name} />
          </li>
        );
      })}
    </ul>
  );
}

/** Ports without anything below them say nothing. */
function isOfUse(node: NodePicture, nodes: readonly NodePicture[]): boolean {
  if (node.kind === "host-bridge" || node.kind === "endpoint" || node.kind === "root-endpoint") return true;
  return nodes.some((each) => each.parent === node.name && isOfUse(each, nodes));
}

const KINDS: Readonly<Record<NodePicture["kind"], string>> = {
  "host-bridge": "",
  "root-port": "root port",
  "upstream-port": "switch, up",
  "downstream-port": "switch, down",
  endpoint: "device",
  "root-endpoint": "device",
};
