const luminance = c => { const v = c.match(/[\d.]+/g).slice(0, 3).map(x => x / 255)
  .map(x => x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4); return .2126 * v[0] + .7152 * v[1] + .0722 * v[2]; };
const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
  if (c !== 'rgba(0, 0, 0, 0)' && c !== 'transparent') return c; } return 'rgb(255, 255, 255)'; };
const named = (page, e) => (e.getAttribute('aria-label') || e.textContent || '').trim() || [...(e.labels || [])].some(l => l.textContent.trim());
const tell = found => document.body.setAttribute('data-found', JSON.stringify(found));
const touch = page => {
  const press = (e, key) => e.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
  const charts = [...page.querySelectorAll('.chart')], table = page.querySelector('table[data-name]'), done = { charts: charts.length };
  if (charts.length) { press(charts[0], 'ArrowRight'); const first = charts[0].nextElementSibling.textContent;
    press(charts[0], 'ArrowRight'); done.walked = first.length > 3 && charts[0].nextElementSibling.textContent !== first; press(charts[0], 'Escape');
    done.hidden = page.querySelector('.tip').hidden; }
  const layer = page.querySelector('#pick-layer');
  if (layer && layer.options.length > 1) { layer.selectedIndex = 1; layer.dispatchEvent(new Event('change', { bubbles: true }));
    done.picked = new Set([...page.querySelectorAll('.mark.on')].map(m => m.closest('.chart'))).size;
    done.filtered = [...page.querySelectorAll('.count')].filter(c => / layer(_base)? /.test(c.textContent)).length;
    page.querySelector('#pick button').click(); done.cleared = page.querySelectorAll('.mark.on').length; }
  if (table) { const button = table.querySelector('.sort'), head = button.closest('th'), cells = () => [...table.tBodies[0].rows].map(r => r.cells[0].textContent);
    button.click(); const up = cells(), said = head.getAttribute('aria-sort'); button.click();
    done.sorted = said === 'ascending' && head.getAttribute('aria-sort') === 'descending' && String(up) === String([...up].sort((a, b) => a.localeCompare(b, undefined, { numeric: true })))
      && cells()[0] === up[up.length - 1];
    const field = table.closest('.wide').previousElementSibling.querySelector('input');
    field.value = 'no such row anywhere'; field.dispatchEvent(new Event('input', { bubbles: true }));
    done.none = [...table.tBodies[0].rows].every(r => r.hidden) && /^ ?0 of/.test(field.closest('.tools').querySelector('.count').textContent);
    field.value = ''; field.dispatchEvent(new Event('input', { bubbles: true })); }
  return done; };
addEventListener('load', () => setTimeout(async () => {
  const frame = document.querySelector('iframe'), page = frame.contentDocument, root = page.documentElement;
  page.querySelectorAll('details').forEach(d => d.open = true);
  await new Promise(done => setTimeout(done, 300));
  const texts = [...page.querySelectorAll('main *')].filter(e => !e.closest('svg') && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()));
  const sizes = texts.map(e => parseFloat(getComputedStyle(e).fontSize));
  const ratio = (one, two) => { const a = luminance(one), b = luminance(two); return (Math.max(a, b) + .05) / (Math.min(a, b) + .05); };
  const ratios = texts.map(e => ratio(getComputedStyle(e).color, behind(e)));
  ratios.push(...[...page.querySelectorAll('.chart text:not(.inside)')].map(e => ratio(getComputedStyle(e).fill, behind(e))));
  const images = [...page.images], levels = [...page.querySelectorAll('h1, h2, h3')].map(h => +h.tagName[1]);
  const wide = [...page.querySelectorAll('main *')].filter(e => !e.closest('.wide, .pane, pre, .skip, svg')
    && e.getBoundingClientRect().right > root.clientWidth + 1);
  const drawnOver = [...page.querySelectorAll('.chart svg')].filter(s => s.getBoundingClientRect().right > root.clientWidth + 1);
  const ids = [...page.querySelectorAll('[id]')].map(e => e.id), controls = [...page.querySelectorAll('button, input, select, a[href], summary, [tabindex="0"]')];
  const found = { width: root.clientWidth, scroll: root.scrollWidth, wide: [...wide, ...drawnOver].slice(0, 3).map(e => e.outerHTML.slice(0, 120)),
    images: images.length, broken: images.filter(i => !i.naturalWidth).length, silent: images.filter(i => !i.alt.trim()).length,
    smallest: Math.min(...sizes), contrast: Math.min(...ratios),
    drawn: Math.min(9999, ...images.map(i => i.getBoundingClientRect().width)), skips: levels.filter((l, i) => i && l > levels[i - 1] + 1).length,
    h1: levels.filter(l => l === 1).length, lang: root.lang, first: page.body.innerText.trim().slice(0, 200), height: root.scrollHeight,
    stops: controls.length, nameless: controls.filter(e => !named(page, e)).map(e => e.outerHTML.slice(0, 80)),
    twice: ids.filter((id, n) => ids.indexOf(id) !== n), jumps: page.querySelectorAll('[tabindex]:not([tabindex="0"]):not([tabindex="-1"])').length,
    bare: [...page.querySelectorAll('table')].filter(t => !t.caption || [...t.querySelectorAll('th')].some(h => !h.scope)).length,
    pictures: page.querySelectorAll('main > figure').length,
    lost: [...page.querySelectorAll('a[href^="#"]')].filter(a => !page.getElementById(a.hash.slice(1))).length };
  if (root.classList.contains('ready')) found.touched = touch(page);
  if (frame.contentWindow.axe) { const told = await frame.contentWindow.axe.run({ resultTypes: ['violations'] });
    found.axe = told.violations.map(v => `${v.impact}: ${v.id} (${v.nodes.length}) ${v.nodes[0].html.slice(0, 100)}`); }
  tell(found);
}, 300));
