"use strict";
(function () {
  const said = document.getElementById("said");
  const collator = new Intl.Collator("en", { numeric: true });

  // What a cell sorts by: its raw value, else the number that it begins with, else its text.
  function key(cell) {
    const text = cell.textContent.trim();
    const value = cell.dataset.value === undefined ? text.replace(/^</, "").replace(/,(?=\d{3})/g, "") : cell.dataset.value;
    const number = parseFloat(value);
    return { number: number, text: text };
  }
  function compare(first, second) {
    const known = [first, second].map(function (each) { return !Number.isNaN(each.number); });
    if (known[0] && known[1]) return first.number - second.number;
    if (known[0] !== known[1]) return known[0] ? -1 : 1;
    return collator.compare(first.text, second.text);
  }
  document.querySelectorAll("thead th").forEach(function (head) {
    if (head.querySelector("details")) return;
    const button = document.createElement("button");
    button.type = "button";
    while (head.firstChild) button.appendChild(head.firstChild);
    head.appendChild(button);
    button.addEventListener("click", function () {
      const table = head.closest("table"), body = table.tBodies[0], place = head.cellIndex;
      const down = head.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("thead th").forEach(function (each) { each.removeAttribute("aria-sort"); });
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = Array.from(body.rows).map(function (row) { return [key(row.cells[place]), row]; });
      rows.sort(function (a, b) { return (down ? -1 : 1) * compare(a[0], b[0]); });
      rows.forEach(function (pair) { body.appendChild(pair[1]); });
      said.textContent = "Sorted by " + button.textContent.trim() + (down ? ", descending" : ", ascending");
    });
  });

  document.querySelectorAll(".code").forEach(function (block) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    button.addEventListener("click", function () {
      const code = block.querySelector("code");
      function done(word) { button.textContent = word; said.textContent = word; }
      function select() { window.getSelection().selectAllChildren(code); done("Selected"); }
      if (!navigator.clipboard) { select(); return; }
      navigator.clipboard.writeText(code.textContent).then(function () { done("Copied"); }, select);
    });
    block.appendChild(button);
  });

  function picked() {
    document.querySelectorAll("svg a").forEach(function (link) {
      if (link.getAttribute("href") === location.hash) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    });
  }
  window.addEventListener("hashchange", picked);
  picked();
})();
