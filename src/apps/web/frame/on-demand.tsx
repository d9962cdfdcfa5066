/** A view that is loaded when it is first shown; `given` are its properties. */
import type { ComponentType, VNode } from "preact";
import { useEffect, useState } from "preact/hooks";
import { loadPart } from "./parts.ts";

export function OnDemand({ part, given }: { readonly part: string; readonly given?: object }): VNode {
  const [View, show] = useState<ComponentType>();
  const [trouble, say] = useState<string>();
  useEffect(() => {
    loadPart(part).then(
      (component) => show(() => component),
      (error: Error) => say(error.message),
    );
  }, [part]);
  if (trouble !== undefined) return <p class="notice error">{trouble}</p>;
  return View ? <View {...given} /> : <p class="quiet pad">loading …</p>;
}
