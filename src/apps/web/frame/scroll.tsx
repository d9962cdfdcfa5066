/** A region that scrolls by itself, by mouse and by keyboard, with a name for who cannot see it. */
import type { ComponentChildren, VNode } from "preact";

export function Scroll({ name, children }: { readonly name: string; readonly children: ComponentChildren }): VNode {
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reached by the keyboard, or its end is never seen
    <section class="scroll" tabIndex={0} aria-label={name}>
      {children}
    </section>
  );
}
