/** The part of the page that is loaded on demand for the machine: gives its view to the page. */
import type { VNode } from "preact";
import { useEffect } from "preact/hooks";
import { givePart } from "../frame/parts.ts";
import { route } from "../frame/route.ts";
import "./machine.css";
import { Buttons } from "./panels/buttons.tsx";
import { Counts } from "./panels/counts.tsx";
import { Lessons } from "./panels/lessons.tsx";
import { Log } from "./panels/log.tsx";
import { Program } from "./panels/program.tsx";
import { AddressPicture } from "./pictures/addresses.tsx";
import { CachePicture } from "./pictures/cache.tsx";
import { TablesPicture } from "./pictures/tables.tsx";
import { TreePicture } from "./pictures/tree.tsx";
import { beginFromRoute, standing } from "./session.ts";

function Machine(): VNode {
  const { view, at } = route.value;
  useEffect(beginFromRoute, [view, at["lesson"], at["broken"], at["step"]]);
  const now = standing.value;
  return (
    <div class="machine" data-standing={now ? "" : undefined}>
      <div class="machine-side">
        <Lessons />
        <Program />
      </div>
      <div class="machine-pictures">
        {now ? (
          <>
            <AddressPicture picture={now.picture} />
            <div class="machine-pair">
              <TablesPicture spaces={now.picture.spaces} />
              <CachePicture spaces={now.picture.spaces} />
            </div>
          </>
        ) : null}
      </div>
      <div class="machine-side">
        {now ? (
          <>
            <Buttons picture={now.picture} />
            <TreePicture picture={now.picture} />
            <Counts />
            <Log picture={now.picture} />
          </>
        ) : null}
      </div>
    </div>
  );
}

givePart("machine", Machine);
