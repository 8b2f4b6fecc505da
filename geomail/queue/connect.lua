-- connect: say how many connections to a route a worker has and wants, and hear how many it may have.
--
-- KEYS  {geomail:<route>}:conns
-- ARGV  holder, connections that it can't do without now, wanted, limit, lease in ms, holders known to be dead…
-- Returns  {granted, share, waiting, left, other holder…}: of `granted` the holder is sure until the lease ends; where
--          others wait it should come down to `share`, end what is idle, and say so; `waiting`: how many do;
--          `left`: how many nobody has. Others are named only where less was granted than wanted.
--
-- A field is `<granted> <wanted> <begin of the lease in ms> <its length>`. What is granted is taken back by nobody
-- before the lease ends, so their sum is never above the limit; after a roll-back each holder says again what it has,
-- and all come down. A lease that has not begun yet, for the clock was set back, begins now. Fair: while another has less than an even share and wants more, nobody gets more than his. O(holders).
local conns, holder = KEYS[1], ARGV[1]
size_of('HLEN', conns)
if refusal then
  return refusal
end
call('HDEL', conns, '')
local now = now_ms()
local has, wanted, limit, lease = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
for i = 6, #ARGV do
  call('HDEL', conns, ARGV[i])
end

local function field(granted, wish, lasts)
  return string.format('%.0f %.0f %.0f %.0f', granted, wish, now, lasts)
end

local others, taken, wanting = {}, 0, wanted > 0 and 1 or 0
local hunger = {}
local fields = call('HGETALL', conns)
for i = 1, #fields, 2 do
  local granted, wish, begun, lasts = match(fields[i + 1], '^(%d+) (%d+) (%d+) (%d+)$')
  if begun and tonumber(begun) > now then
    call('HSET', conns, fields[i], field(granted, wish, lasts))
  end
  if not begun or begun + lasts <= now then
    call('HDEL', conns, fields[i])
  elseif fields[i] ~= holder then
    others[#others + 1] = fields[i]
    taken = taken + granted
    if tonumber(wish) > 0 then
      wanting = wanting + 1
    end
    if tonumber(wish) > tonumber(granted) then
      hunger[#hunger + 1] = tonumber(granted)
    end
  end
end

local share = math.ceil(limit / math.max(wanting, 1))
local is_another_hungry = false
for _, granted in ipairs(hunger) do
  is_another_hungry = is_another_hungry or granted < share
end
local most = limit - taken
if is_another_hungry then
  most = math.min(most, share)
end
local granted = math.max(has, math.min(wanted, most))
if granted == 0 and wanted == 0 then
  call('HDEL', conns, holder)
else
  call('HSET', conns, holder, field(granted, wanted, lease))
  call('PEXPIRE', conns, lease * 2)
end
local must_share = is_another_hungry or taken + granted > limit
local reply = {granted, must_share and math.min(granted, share) or granted, #hunger}
reply[4] = math.max(0, limit - taken - granted)
if granted < wanted then
  for i, name in ipairs(others) do
    reply[4 + i] = name
  end
end
return reply
