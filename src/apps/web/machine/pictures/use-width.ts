/** The width that an element has on the page. */
import type { RefObject } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";

/** An element to hold, and its width in CSS pixels; `first` before it is known. */
export function useWidth<E extends Element>(first: number): readonly [RefObject<E | null>, number] {
  const held = useRef<E>(null);
  const [width, setWidth] = useState(first);
  useLayoutEffect(() => {
    const element = held.current;
    if (!element) return undefined;
    const observer = new ResizeObserver(([entry]) => setWidth(Math.floor(entry!.contentRect.width)));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  return [held, width];
}
