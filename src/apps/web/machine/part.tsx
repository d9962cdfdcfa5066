/** The part of the page that is loaded on demand for the machine: gives its view to the page. */
import { givePart } from "../frame/parts.ts";

givePart("machine", () => <p class="pad">The machine.</p>);
