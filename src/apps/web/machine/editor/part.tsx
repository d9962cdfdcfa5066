/**
 * The editor of programs: CodeMirror with JavaScript, a part of its own that is loaded when it is opened.
 *
 * Idea: the text is the machine's; the editor tells of changes and is told where the program waits and where it went wrong.
 */
import { javascript } from "@codemirror/lang-javascript";
import { EditorState, StateEffect, StateField } from "@codemirror/state";
import { Decoration, type DecorationSet, keymap, WidgetType } from "@codemirror/view";
import { basicSetup, EditorView } from "codemirror";
import type { ComponentType, VNode } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { givePart } from "../../frame/parts.ts";
import "./editor.css";
import type { EditorGiven } from "./given.ts";
import { LOOKS } from "./looks.ts";

type Marks = Pick<EditorGiven, "ahead" | "failed">;

const mark = StateEffect.define<Marks>();

/** What went wrong, below its line. */
class Message extends WidgetType {
  readonly #text: string;
  constructor(text: string) {
    super();
    this.#text = text;
  }
  override eq(other: Message): boolean {
    return other.#text === this.#text;
  }
  toDOM(): HTMLElement {
    const element = document.createElement("div");
    element.className = "machine-line-error";
    element.textContent = this.#text;
    return element;
  }
}

/** The marked lines. A change of the text takes the error's mark away: it was about another text. */
const marks = StateField.define<DecorationSet>({
  create: () => Decoration.none,
  update(now, transaction) {
    const effect = transaction.effects.findLast((each) => each.is(mark));
    if (!effect) return transaction.docChanged ? Decoration.none : now;
    const { doc } = transaction.state;
    const { ahead, failed } = effect.value as Marks;
    const found = [];
    if (ahead !== undefined && ahead <= doc.lines)
      found.push(Decoration.line({ class: "machine-line-ahead" }).range(doc.line(ahead).from));
    if (failed !== undefined && failed.line >= 1 && failed.line <= doc.lines) {
      const { from, to } = doc.line(failed.line);
      found.push(Decoration.line({ class: "machine-line-failed" }).range(from));
      found.push(Decoration.widget({ widget: new Message(failed.message), block: true, side: 1 }).range(to));
    }
    return Decoration.set(found, true);
  },
  provide: (field) => EditorView.decorations.from(field),
});

function Editor({ text, ahead, failed, changed, run }: EditorGiven): VNode {
  const place = useRef<HTMLDivElement>(null);
  const view = useRef<EditorView | undefined>(undefined);
  const told = useRef({ changed, run });
  told.current = { changed, run };
  useEffect(() => {
    const editor = new EditorView({
      parent: place.current!,
      state: EditorState.create({
        doc: text,
        extensions: [
          keymap.of([
            {
              key: "Ctrl-Enter",
              mac: "Cmd-Enter",
              run: () => {
                told.current.run();
                return true;
              },
            },
          ]),
          basicSetup,
          javascript(),
          marks,
          LOOKS,
          EditorView.contentAttributes.of({ "aria-label": "program" }),
          EditorView.updateListener.of((update) => {
            if (update.docChanged) told.current.changed(update.state.doc.toString());
          }),
        ],
      }),
    });
    view.current = editor;
    return () => editor.destroy();
  }, []);
  useEffect(() => {
    const editor = view.current;
    if (!editor) return;
    if (editor.state.doc.toString() !== text)
      editor.dispatch({ changes: { from: 0, to: editor.state.doc.length, insert: text } });
    editor.dispatch({ effects: mark.of({ ahead, failed }) });
  }, [text, ahead, failed?.line, failed?.message]);
  return (
    <>
      <div ref={place} class="machine-editor" />
      <p class="quiet">
        Ctrl-Enter runs it, Escape and then Tab leave the editor. It imports from dmalink, dmalink/sim, /iommu,
        /iommufd, /process, /hmm and /dmabuf; <code>await step("what comes next", "what to see then")</code> stops;{" "}
        <code>console.log</code> says.
      </p>
    </>
  );
}

givePart("editor", Editor as unknown as ComponentType);
