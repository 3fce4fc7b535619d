// The list of classes: how far each is, with a search.

import {ask} from "./server.js";
import {element} from "./tiles.js";

const find = id => document.getElementById(id);
let wanted = null, open = null;

export function start(facts, openClass) {
  wanted = facts.wanted;
  open = openClass;
  find("short_text").textContent = wanted ? `short of ${wanted}` : "not finished";
  for (const name of ["search", "short"]) find(name).oninput = () => list();
  const narrow = matchMedia("(max-width: 1099px)");
  const show = shown => {
    document.body.classList.toggle("with_classes", shown);
    find("open_classes").ariaExpanded = String(shown);
  };
  show(!narrow.matches);
  find("open_classes").onclick = () =>
    show(!document.body.classList.contains("with_classes"));
}

function line(data, here) {
  const {accepted, rejected, possible} = data;
  const goal = wanted ?? possible;
  const short = possible < goal ? `, ${possible} possible` : "";
  const button = element("button", {
    textContent: `${data.name}: ${accepted} of ${goal}${short}`,
    ariaLabel: `${data.name}: ${accepted} accepted, ${rejected} rejected, of ${goal}${short}`,
  });
  if (data.class === here) button.ariaCurrent = "true";
  button.onclick = () => open(data.class);
  const bar = element("div", {className: "bar"}, element("i"));
  bar.firstChild.style.width = `${100 * Math.min(1, accepted / goal)}%`;
  button.append(bar);
  return button;
}

const more = count => element("p", {textContent: count ? `${count} more` : ""});

let near = 0;
export async function list(here = near) {
  near = here;
  const asked = new URLSearchParams({near, search: find("search").value});
  if (find("short").checked) asked.set("short", 1);
  const data = await ask(`/classes?${asked}`);
  const box = find("class_list"), kept = box.scrollTop;
  box.replaceChildren(
    element("p", {textContent: `${data.lacking} ${wanted ? `short of ${wanted}` : "not finished"}`}),
    more(data.before), ...data.classes.map(c => line(c, near)), more(data.behind));
  box.scrollTop = kept;
  box.querySelector("[aria-current]")?.scrollIntoView({block: "nearest"});
}
