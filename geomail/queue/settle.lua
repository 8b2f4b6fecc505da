-- settle: record what became of slots of one worker's batches.
--
-- KEYS  open:<worker> jobs delayed dead front suspects routes workers stats seen:0 seen:1 outcomes:0 outcomes:1
--       batch:<worker>:<seq>… park:<route>… [pushed]
-- ARGV  worker, 'reconciled' or '', number of batches, number of parkings, then
--       for each batch: seq, indexes of its untouched slots that are done ('0,3,4');
--       for each parking of slots of one batch: batch's number, indexes, key's number, route, ms until the route
--       may be tried, json or '' to keep what is there;
--       then records, `<kind> <batch's number> <slot's index>` and what the kind needs:
--         done     id, or '' to look it up; json or ''      a touched job was delivered
--         sent                                   an untouched job was delivered: here only behind `follow`
--         duplicate                              another job holds its dedupe key: dropped
--         retry    ms until due, json
--         unsure   the same; the host may have it already
--         dead     json
--         release  json, or '' to keep what is there
--         split    id, number of parts, then for each part: slot|retry|dead, ms until due, json
--         follow   pushed's number, number of payloads, payloads…, another record's kind and what that needs
-- Returns  {is owner, slots settled, {index of each part that stays in the batch}… one for each split}.
--
-- `done` counts from anybody, fenced or not; when the batch is no longer open the job is removed wherever it is.
-- Everything else only from an owner that nobody fenced, and only once: a settled slot is passed over, so the
-- same call may run twice. A touched job that is gone from `jobs` was delivered by somebody else: its slot is
-- closed and nothing is written. The copy comes before the removal: characters in `open` are written last.
-- A follow-up is pushed when the slot moves, and only then, under the id `<worker>.<seq>.<index>.cb`: of a place that is
-- settled once. The end of a job whose json says `told` goes to `outcomes`; what dies gives its dedupe key back,
-- the parts of one job together, and only where none was delivered.
-- O(1) for a done slot that was never touched; otherwise O(bytes of the job). All that is parked is written by one
-- command for the jobs, one for the timers, and one for each route.
local open, jobs, delayed, dead, front, suspects, routes, workers, stats =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
call('HDEL', open, '')
local worker, batches, parkings = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4])
local counted, now = {}, nil

local cursor = 4 + 2 * batches
if cursor < #ARGV then
  size_of('HLEN', jobs)
  size_of('ZCARD', workers)
  local last = 13 + batches -- of the keys that the first write to them proves
  for i = 1, parkings do
    last = math.max(last, tonumber(ARGV[cursor + 6 * i - 3]))
  end
  for i = last + 1, #KEYS do
    size_of('LLEN', KEYS[i])
  end
  if parkings > 0 then
    size_of('ZCARD', routes)
  end
  if cursor + 6 * parkings < #ARGV then
    size_of('LLEN', front)
    size_of('LLEN', suspects)
    size_of('ZCARD', delayed)
    size_of('ZCARD', dead)
  end
  if refusal then
    return refusal
  end
  now = now_ms()
end
local lease = call('ZSCORE', workers, worker)
local is_owner = lease and tonumber(lease) > 0

local function count(name, number)
  counted[name] = (counted[name] or 0) + (number or 1)
end

local function tell(id, what, json)
  note_outcome(KEYS[12], KEYS[13], now, id, what, json)
end

local function bury(id, json)
  call('ZADD', dead, now, id)
  free_key(jobs, dead, KEYS[10], KEYS[11], id, json)
  tell(id, 'dead', json)
end

-- The characters of each batch as a table of bytes; nil for a batch that is not open.
local tables, taken = {}, {}
for b = 1, batches do
  local entry = call('HGET', open, ARGV[3 + 2 * b])
  if entry then
    local at = find(entry, ' ', 1, true)
    local characters = {}
    for from = at + 1, #entry, 4000 do
      for _, character in ipairs({byte(entry, from, from + 3999)}) do
        characters[#characters + 1] = character
      end
    end
    tables[b], taken[b] = characters, sub(entry, 1, at - 1)
  end
end

local function is_live(b, index)
  local character = tables[b] and tables[b][index + 1]
  return character == LIVE or character == UNREAD or character == SUSPECT
end

local function place_of(b, index)
  return worker .. '.' .. ARGV[3 + 2 * b] .. '.' .. index
end

local function settle_untouched(b)
  local characters, done = tables[b], 0
  for index in string.gmatch(ARGV[4 + 2 * b], '%d+') do
    if not characters then
      if forget(jobs, delayed, dead, place_of(b, index)) then
        done = done + 1
      end
    elseif is_live(b, index) then
      characters[index + 1] = SETTLED
      done = done + 1
    end
  end
  counted.delivered = (counted.delivered or 0) + done
end

local function next_arg()
  cursor = cursor + 1
  return ARGV[cursor]
end

-- What a live slot holds: id, deaths, first seen, json, bytes, is touched; only the id when the job is gone.
-- `item`: what lies there, where it was read before.
local function slot_of(b, index, item)
  item = item or call('LINDEX', KEYS[13 + b], index)
  local id = place_of(b, index)
  if not item then
    return id
  end
  if byte(item) ~= 1 or tables[b][index + 1] == UNREAD then
    return id, '0', taken[b], '{}', item, false
  end
  id = sub(item, 2)
  local value = job_value(jobs, id)
  if not value then
    return id
  end
  local deaths, first, json, bytes = parse(value)
  return id, deaths, first, json, bytes, true
end

-- Move a live slot: write its job with a new json, then whatever `place` does with the id. Returns whether it moved.
local function move(b, index, json, name, place)
  if not (is_owner and is_live(b, index)) then
    return
  end
  local id, deaths, first, old_json, bytes = slot_of(b, index)
  if deaths then
    call('HSET', jobs, id, render(deaths, first, json ~= '' and json or old_json, bytes))
    place(id)
    count(name)
  end
  tables[b][index + 1] = SETTLED
  return deaths ~= nil
end

local function in_pieces(command, key, words)
  for from = 1, #words, 1000 do
    call(command, key, unpack(words, from, math.min(from + 999, #words)))
  end
end

-- What lies at some indexes of a batch, by index: read by one command where they lie close together.
local function items_at(b, indexes)
  local from, to = math.min(unpack(indexes)), math.max(unpack(indexes))
  if to - from >= 8 * #indexes then
    return {}
  end
  local items = {}
  for k, item in ipairs(call('LRANGE', KEYS[13 + b], from, to)) do
    items[from + k - 1] = item
  end
  return items
end

-- Read what is parked from ARGV: batch, live indexes, key, route, due, json of each parking.
local function read_parkings()
  local all, indexes_of = {}, {}
  for i = 1, parkings do
    local b, indexes = tonumber(next_arg()), {}
    for index in string.gmatch(next_arg(), '%d+') do
      if is_owner and is_live(b, tonumber(index)) then
        indexes[#indexes + 1] = tonumber(index)
      end
    end
    local key, route, due, json = KEYS[tonumber(next_arg())], next_arg(), next_arg(), next_arg()
    all[i] = {b = b, indexes = indexes, key = key, route = route, due = due, json = json}
    indexes_of[b] = indexes_of[b] or {}
    for _, index in ipairs(indexes) do
      table.insert(indexes_of[b], index)
    end
  end
  local items = {}
  for b, indexes in pairs(indexes_of) do
    items[b] = #indexes > 0 and items_at(b, indexes)
  end
  return all, items
end

-- Push references to their routes. Where a key is of another type all are taken back, and it is refused.
local function push_all(references)
  local pushed = {}
  for key, moved in pairs(references) do
    for from = 1, #moved, 1000 do
      local done = redis.pcall('LPUSH', key, unpack(moved, from, math.min(from + 999, #moved)))
      if type(done) == 'table' then
        refusal = redis.error_reply(done.err .. ' [' .. key .. ']')
        for other, count in pairs(pushed) do
          call('LTRIM', other, count, -1)
        end
        return
      end
      pushed[key] = math.min(from + 999, #moved)
    end
  end
end

-- Write all that is parked: references first, which tells whether their keys are lists, then jobs; each batch is
-- read once. Nothing is written before it.
local function park_all()
  local all, items = read_parkings()
  local written, references, timers = {}, {}, {}
  for _, parking in ipairs(all) do
    local b, moved = parking.b, references[parking.key] or {}
    for _, index in ipairs(parking.indexes) do
      local id, deaths, first, old_json, bytes = slot_of(b, index, items[b][index])
      if deaths and is_live(b, index) then
        written[#written + 1] = id
        written[#written + 1] = render(deaths, first, parking.json ~= '' and parking.json or old_json, bytes)
        moved[#moved + 1] = '\1' .. id
      end
      tables[b][index + 1] = SETTLED
    end
    if #moved > 0 then
      references[parking.key] = moved
      timers[#timers + 1], timers[#timers + 2] = now + parking.due, parking.route
    end
  end
  push_all(references)
  if refusal or #written == 0 then
    return
  end
  in_pieces('HSET', jobs, written)
  call('ZADD', routes, 'NX', unpack(timers))
  count('parked', #written / 2)
end

local function split(b, index, whole_id, parts)
  local places = {}
  if not (is_owner and is_live(b, index)) then
    for k, part in ipairs(parts) do
      local at = tables[b] and part.fate == 'slot' and call('LPOS', KEYS[13 + b], '\1' .. whole_id .. '/' .. k)
      if at and is_owner then
        places[#places + 1] = at
      end
    end
    return places
  end
  local id, deaths, first, _, bytes, is_touched = slot_of(b, index)
  if deaths then
    local root = root_of(id)
    if not is_touched then
      call('HSET', jobs, id, render(deaths, first, '{}', bytes))
    end
    call('HINCRBY', jobs, (root or id) .. '/', #parts)
    for k, part in ipairs(parts) do
      local part_id = id .. '/' .. k
      call('HSET', jobs, part_id, render(deaths, first, part.json, ''))
      if part.fate == 'slot' then
        call('RPUSH', KEYS[13 + b], '\1' .. part_id)
        table.insert(tables[b], LIVE)
        places[#places + 1] = #tables[b] - 1
      elseif part.fate == 'retry' then
        call('ZADD', delayed, now + part.due, part_id)
        count('retried')
      else
        bury(part_id, part.json)
        count('dead')
      end
    end
    if root then
      call('HDEL', jobs, id)
      count_parts(jobs, root, -1)
      if parts[#parts].fate == 'dead' then -- else one lives, or died when this one was still counted
        free_key(jobs, dead, KEYS[10], KEYS[11], id .. '/' .. #parts, parts[#parts].json)
      end
    end
    count('split')
  end
  tables[b][index + 1] = SETTLED
  return places, deaths ~= nil
end

local kinds = {}

function kinds.done(b, index)
  local id, json = next_arg(), next_arg()
  if tables[b] and not is_live(b, index) then
    return
  end
  if tables[b] then
    if id == '' then
      local _
      id, _, _, json = slot_of(b, index)
    end
    tables[b][index + 1] = SETTLED
  end
  keep_key(jobs, id)
  if forget(jobs, delayed, dead, id) then
    count('delivered')
    tell(id, 'delivered', json or '')
    return true
  elseif tables[b] then
    count('duplicates')
  end
end

function kinds.sent(b, index)
  local was_live = is_live(b, index)
  if was_live then
    tables[b][index + 1] = SETTLED
  end
  if was_live or (not tables[b] and forget(jobs, delayed, dead, place_of(b, index))) then
    count('delivered')
    return true
  end
end

function kinds.duplicate(b, index)
  if not (is_owner and is_live(b, index)) then
    return
  end
  local id, _, _, json, _, is_touched = slot_of(b, index)
  if is_touched then
    forget(jobs, delayed, dead, id)
    tell(id, 'duplicate', json)
  end
  tables[b][index + 1] = SETTLED
  count('deduped')
  return true
end

function kinds.retry(b, index)
  local due, json = next_arg(), next_arg()
  return move(b, index, json, 'retried', function(id)
    call('ZADD', delayed, now + due, id)
  end)
end

function kinds.unsure(b, index)
  if kinds.retry(b, index) then
    count('unsure')
  end
end

function kinds.dead(b, index)
  local json = next_arg()
  return move(b, index, json, 'dead', function(id)
    bury(id, json)
  end)
end

function kinds.release(b, index)
  local home = tables[b] and tables[b][index + 1] == SUSPECT and suspects or front
  move(b, index, next_arg(), 'released', function(id)
    call('RPUSH', home, '\1' .. id)
  end)
end

local reply = {is_owner and 1 or 0, 0}

function kinds.split(b, index)
  local whole_id, parts = next_arg(), {}
  for k = 1, tonumber(next_arg()) do
    parts[k] = {fate = next_arg(), due = next_arg(), json = next_arg()}
  end
  local places, has_moved = split(b, index, whole_id, parts)
  reply[#reply + 1] = places
  return has_moved
end

function kinds.follow(b, index)
  local pushed, payloads = KEYS[tonumber(next_arg())], {}
  for i = 1, tonumber(next_arg()) do
    payloads[i] = next_arg()
  end
  if not kinds[next_arg()](b, index) then
    return
  end
  for i, payload in ipairs(payloads) do
    local id = place_of(b, index) .. '.cb' .. (i > 1 and i or '')
    call('HSET', jobs, id, render(0, now, '{"callback":true}', payload))
    call('LPUSH', pushed, '\1' .. id)
  end
end

-- Deliveries of batches that are open are noted in their characters only: nothing that a refusal leaves behind.
for b = 1, batches do
  if tables[b] then
    settle_untouched(b)
  end
end
park_all()
if refusal then
  return refusal
end
for b = 1, batches do
  if not tables[b] then
    settle_untouched(b)
  end
end
while cursor < #ARGV do
  local kind, b, index = next_arg(), tonumber(next_arg()), tonumber(next_arg())
  kinds[kind](b, index)
end

for b, characters in pairs(tables) do
  local text = ''
  for from = 1, #characters, 4000 do
    text = text .. string.char(unpack(characters, from, math.min(from + 3999, #characters)))
  end
  if find(text, '[.bs]') then
    call('HSET', open, ARGV[3 + 2 * b], taken[b] .. ' ' .. text)
  else
    call('HDEL', open, ARGV[3 + 2 * b])
    call('UNLINK', KEYS[13 + b])
  end
end
for name, number in pairs(counted) do
  if number > 0 then
    reply[2] = reply[2] + number
    redis.pcall('HINCRBY', stats, name, number)
  end
end
if ARGV[2] ~= '' and reply[2] > 0 then
  redis.pcall('HINCRBY', stats, ARGV[2], reply[2])
end
return reply
