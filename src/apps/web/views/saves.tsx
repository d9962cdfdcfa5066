/** Saving what is shown as a file: the picture as PNG, or as SVG with the picture inside. Made in the page; nothing is asked of a server. */
import type { VNode } from "preact";
import { escaped } from "../../../report/index.ts";
import { styleColour } from "../frame/time-picture.tsx";

export function Saves({ name }: { readonly name: string }): VNode {
  return (
    <span class="saves">
      <button type="button" onClick={() => savePicture(name, "png")}>
        PNG
      </button>
      <button type="button" onClick={() => savePicture(name, "svg")}>
        SVG
      </button>
    </span>
  );
}

/** The picture of the view on the ground that it has on the screen. */
async function savePicture(name: string, form: "png" | "svg"): Promise<void> {
  const shown = document.querySelector<HTMLCanvasElement>("canvas.picture");
  if (!shown) return;
  const copy = document.createElement("canvas");
  [copy.width, copy.height] = [shown.width, shown.height];
  const context = copy.getContext("2d")!;
  context.fillStyle = styleColour("--ground");
  context.fillRect(0, 0, copy.width, copy.height);
  context.drawImage(shown, 0, 0);
  if (form === "png") {
    copy.toBlob((blob) => blob && save(`${name}.png`, blob), "image/png");
    return;
  }
  const { clientWidth: width, clientHeight: height } = shown;
  const svg =
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">` +
    `<title>${escaped(shown.getAttribute("aria-label") ?? name)}</title>` +
    `<image width="${width}" height="${height}" href="${copy.toDataURL("image/png")}"/></svg>\n`;
  save(`${name}.svg`, new Blob([svg], { type: "image/svg+xml" }));
}

/** An answer of the commands, as they print it with --json: for other programs, and to hold against a terminal. */
export const SaveJson = ({ name, value }: { readonly name: string; readonly value: object }): VNode => (
  <button
    type="button"
    onClick={() =>
      save(`${name}.json`, new Blob([`${JSON.stringify(value, plain, 2)}\n`], { type: "application/json" }))
    }
  >
    {name}.json
  </button>
);

/** As the terminal prints it: numbers that JSON cannot hold are hex strings. */
const plain = (_key: string, value: unknown): unknown =>
  typeof value === "bigint" ? `0x${value.toString(16)}` : value;

/** Gives a file to the browser's downloads. */
function save(name: string, blob: Blob): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name.replace(/[^\w.-]+/g, "_");
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
