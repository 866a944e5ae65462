"""Vocabulary of sports; `grammar.read_tables` explains the format."""

TABLE = """\
sports/football_nfl
who: quarterback, wide receiver, linebacker, offensive coordinator, tight end, rookie cornerback, punter
names: Green Bay Packers, Dallas Cowboys, Pittsburgh Steelers, New England Patriots, Super Bowl, Seattle Seahawks,
Kansas City Chiefs, Chicago Bears, San Francisco 49ers, Lambeau Field, Baltimore Ravens, Cleveland Browns
things: touchdowns, interceptions, fumbles, blitzes, field goals, onside kicks, playoff berths, huddles, sacks, end
zone celebrations, draft picks, training camps, hamstring injuries, two-point conversions
acts: throws four scoring passes, !tears an ACL during practice, returns a kickoff 98 yards, leads a fourth-quarter
comeback, !gets benched at halftime, signs a record extension, breaks the single-season rushing mark, !misses the
game-winning kick
how: pick a fantasy lineup, read a zone defense, tackle safely, survive a tailgate, throw a perfect spiral, follow the
wild-card race

sports/basketball_nba
who: point guard, power forward, shooting guard, head coach, center, sixth man, franchise star
names: Los Angeles Lakers, Boston Celtics, Golden State Warriors, Chicago Bulls, Miami Heat, Madison Square Garden,
Toronto Raptors, Brooklyn Nets, Houston Rockets, Denver Nuggets, Staples Center, Milwaukee Bucks
things: slam dunks, three-pointers, rebounds, free throws, triple-doubles, alley-oops, buzzer beaters, crossover
dribbles, turnovers, pick-and-rolls, backboards, salary caps, ankle sprains, lottery selections
acts: sinks a half-court shot, drops 45 points, dishes out 17 assists, !blocks a last-second layup, demands a trade,
!fouls out in overtime, !sits out with a sore knee, wins rookie of the month
how: shoot like a pro, improve your jump shot, defend the paint, break a full-court press, dribble with both hands,
jump higher at the rim

sports/baseball_mlb
who: pitcher, shortstop, catcher, outfielder, team manager, closer, designated hitter
names: New York Yankees, Boston Red Sox, Fenway Park, Chicago Cubs, Houston Astros, Washington Nationals, World
Series, Wrigley Field, St. Louis Cardinals, San Diego Padres, Atlanta Braves, Los Angeles Dodgers
things: home runs, curveballs, stolen bases, bullpens, innings, double plays, strikeouts, batting averages, fastballs,
spring trainings, umpires, grand slams, free agents, dugouts
acts: throws a no-hitter, hits a walk-off homer, !steals third in the ninth, tosses a complete game shutout, undergoes
Tommy John surgery, wins the Cy Young Award, bats for the cycle, !gets ejected after arguing balls and strikes
how: hit a knuckleball, score a game by hand, choose a glove, steal a sign, catch a foul ball, break in a new bat

sports/icehockey_nhl
who: goaltender, defenseman, left winger, team captain, enforcer, rookie forward
names: Pittsburgh Penguins, Toronto Maple Leafs, Montreal Canadiens, Detroit Red Wings, Boston Bruins, Stanley Cup,
Vegas Golden Knights, Edmonton Oilers, Washington Capitals, Tampa Bay Lightning, Winter Classic, Chicago Blackhawks
things: power plays, slap shots, hat tricks, penalty boxes, faceoffs, body checks, shootouts, pucks, Zambonis, wrist
shots, glove saves, skates, rinks, breakaways
acts: scores short-handed, stops 41 shots, drops the gloves at center ice, lifts the trophy in overtime, !lands on
injured reserve with a concussion, nets his 500th career goal, !draws a five-minute major, deflects in the winner
how: sharpen your blades, skate backwards, tape a stick, win more draws, stickhandle in traffic, flood a backyard
sheet of ice

sports/soccer
who: striker, midfielder, goalkeeper, left back, manager, teenage winger, referee
names: Manchester United, Real Madrid, Barcelona, Liverpool, Champions League, Juventus, World Cup, Bayern Munich,
Premier League, Arsenal, Seattle Sounders, Paris Saint-Germain
things: penalties, corner kicks, offside flags, own goals, headers, transfer windows, red cards, clean sheets, free
kicks, derbies, stoppage times, throw-ins, promotion battles, shin guards
acts: curls one into the top corner, saves a spot kick, scores from 40 yards, completes a loan move, completes a hat
trick, !gets sent off for a late tackle, equalizes in the 90th minute, seals a two-leg victory
how: bend a ball around a wall, understand VAR, play out from the back, coach an under-10 side, head a ball properly,
press without tiring

sports/tennis
who: top seed, wild card entrant, doubles specialist, chair umpire, Grand Slam champion, qualifier
names: Wimbledon, French Open, US Open, Australian Open, Roland Garros, Davis Cup, Indian Wells, Flushing Meadows,
Centre Court, ATP Finals, Melbourne Park, Queen's Club
things: backhands, drop shots, tiebreaks, aces, double faults, baseline rallies, racquets, clay courts, volleys, break
points, line judges, lobs, second serves, match points
acts: wins in straight sets, saves three match points, !smashes a racquet, rallies from two sets down, !retires with
tennis elbow, hits 27 aces, upsets the defending champion, !loses in the quarterfinals
how: serve with more power, string a racquet, grip a forehand, move on grass, return a kick serve, keep score at deuce

sports/golf
who: amateur, caddie, tour veteran, club pro, course designer, major winner
names: Augusta National, Masters, Ryder Cup, Pebble Beach, St Andrews, PGA Tour, Presidents Cup, Torrey Pines, TPC
Sawgrass, LPGA, Callaway, Royal Portrush
things: birdies, bogeys, bunkers, putters, fairways, tee times, eagles, sand wedges, handicaps, greens, water hazards,
mulligans, irons, pin positions
acts: makes a hole-in-one, shoots a 61, chips in for par, !blows a six-stroke lead, !misses the cut, wins in a playoff
on the 18th, !drives into the rough, dons the green jacket
how: cure a slice, read a putt, blast out of the sand, lower your scores, choose the right driver, chip close to the
flag

sports/mma
who: welterweight, heavyweight champion, cage fighter, cornerman, boxing trainer, flyweight contender
names: UFC, Bellator, Las Vegas, Octagon, WBC, T-Mobile Arena, Golden Gloves, Muay Thai, Brazilian Jiu-Jitsu,
Lumpinee, ONE Championship, Top Rank
things: knockouts, takedowns, armbars, uppercuts, title fights, weigh-ins, roundhouse kicks, rear-naked chokes,
gloves, rematches, ring walks, sparring partners, elbows, split decisions
acts: wins by first-round submission, !fails a drug test, !vacates the belt, lands a flying knee, !gets floored by a
left hook, !misses weight by six pounds, calls out a rival, !breaks a jaw in training
how: throw a jab, escape a chokehold, wrap your hands, score a bout, train for a first amateur fight, defend a
double-leg

sports/motorsport
who: driver, crew chief, pit mechanic, race engineer, pole sitter, team principal
names: NASCAR, Formula One, Daytona 500, Indianapolis, Ferrari, Monaco Grand Prix, Talladega, Le Mans, Red Bull
Racing, McLaren, Bristol Motor Speedway, IndyCar
things: pit stops, pole positions, checkered flags, caution laps, restarts, tire compounds, hairpins, chicanes,
qualifying sessions, stock cars, safety cars, podiums, burnouts, slipstreams
acts: !crashes on the final lap, wins from the back of the grid, !spins out in turn three, clinches the drivers'
title, !runs out of fuel while leading, posts the fastest lap, climbs from a burning car, switches teams
how: take an apex, watch a race in the rain, save rubber over a stint, start karting, pack for a speedway weekend,
change four wheels in two seconds

sports/cycling
who: sprinter, climber, time trialist, domestique, mountain biker, yellow jersey holder
names: Tour de France, Giro d'Italia, Alpe d'Huez, Paris-Roubaix, Team Ineos, Vuelta a Espana, Trek, Specialized, Mont
Ventoux, Shimano, Tour of Flanders, Movistar
things: pelotons, breakaway groups, cobblestones, carbon frames, saddles, derailleurs, helmets, mountain stages,
gears, puncture repairs, pedals, velodromes, bike lanes, handlebars
acts: wins a summit finish, !attacks on the descent, !abandons after a broken collarbone, claims the polka dot jersey,
outsprints the bunch, !returns a positive doping sample, rides solo for 60 miles, breaks the hour record
how: climb steep hills, fix a flat, fit a saddle, commute by bike, ride in a paceline, clean a chain

sports/running
who: marathoner, ultrarunner, 1500-meter champion, high school harrier, hurdler, running coach
names: Boston Marathon, New York City Marathon, Nike, Vienna, Badwater, Hayward Field, Comrades, Chicago Marathon,
Brooks, Diamond League, Great North Run, Western States 100
things: blisters, negative splits, finish lines, shin splints, spikes, long runs, pacers, personal bests, hill
repeats, cross-country meets, relay batons, starting blocks, race bibs, tempo workouts
acts: crosses the line in under three hours, !collapses at mile 25, breaks the world record, jogs across America, wins
the state 5K, !hits the wall, qualifies for the Olympic trials, laps the field
how: train for a first 10K, pick trail shoes, avoid side stitches, pace a half-marathon, recover after 26.2 miles,
breathe while jogging

sports/swimming
who: freestyler, backstroker, butterfly specialist, open-water swimmer, diver, lifeguard turned Olympian
names: USA Swimming, FINA, English Channel, Speedo, Omaha, Commonwealth Games, Pan Pacific Championships, Stanford,
Olympic Trials, Aquatics Centre, YMCA, Alcatraz
things: flip turns, goggles, lanes, medley relays, kickboards, springboards, tumble turns, breaststrokes, wetsuits,
poolside records, touchpads, strokes, chlorine allergies, swim caps
acts: breaks the 200-meter record, touches the wall first, splashes to gold, crosses a cold strait in 11 hours,
!drowns rivals by a full body length, !false-starts in the final, wins five medals, wins off the ten-meter platform
how: master bilateral breathing, float without fear, dive off the blocks, teach toddlers in the pool, kick more
efficiently, swim in choppy seas

sports/wintersports
who: slalom skier, snowboarder, figure skater, biathlete, ski jumper, bobsled pilot
names: Vail, Whistler, X Games, Aspen, Chamonix, Kitzbuehel, Burton, Lake Placid, Winter Olympics, Park City, St.
Moritz, Squaw Valley
things: moguls, halfpipes, chairlifts, triple axels, powder days, black diamond runs, gondolas, lift tickets,
avalanches, super-G gates, bindings, snowmakers, apres-ski bars, luges
acts: carves to downhill victory, lands a backside 1080, !falls on a quadruple jump, wins the crystal globe, !breaks a
leg on the icy slope, soars 240 meters, edges out a rival by a hundredth, sweeps the sprint and the pursuit
how: wax a board, stop on skates, carve cleaner turns, choose ski boots, stay warm on the mountain, survive a first
day on the bunny hill

sports/cricket
who: fast bowler, opening batsman, wicketkeeper, leg-spinner, all-rounder, rugby fly-half
names: Lord's, Ashes, Indian Premier League, Eden Gardens, New Zealand Black Caps, Sydney Cricket Ground, Six Nations,
Twickenham, England, Melbourne Cricket Ground, Pakistan, All Blacks
things: wickets, googlies, boundaries, overs, stumps, test matches, sixes, yorkers, run chases, scrums, tries, slip
catches, centuries, drop goals
acts: takes seven for 42, hits an unbeaten double hundred, !is dismissed for a duck, bowls a maiden under pressure,
wins the toss, scores a last-minute try, !tampers with the ball, chases down 350
how: face a bouncer, understand leg before, swing a new ball, hold a bat, field at silly point, pack a rugby ruck
"""
