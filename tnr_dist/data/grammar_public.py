"""Vocabulary of public affairs: news, politics, weather, education; `grammar.read_tables` explains the format."""

TABLE = """\
news/newscrime
who: detective, police chief, robbery suspect, sheriff's deputy, burglar, homicide investigator, bank teller
names: FBI, Baltimore Police, Scotland Yard, Los Angeles County, Interpol, Brooklyn, DEA, Crime Stoppers, Chicago
Police, Oakland, Bronx, Texas Rangers
things: armed robberies, carjackings, fingerprints, 911 calls, stabbings, kidnappings, drug busts, police chases,
surveillance videos, stolen guns, cold cases, manhunts, getaway cars, gang raids
acts: !arrests a man in a double murder, !steals $40000 at gunpoint, solves a 30-year-old killing, !opens fire outside
a nightclub, recovers a trove of jewelry, !identifies a body found in a river, !hunts for an arsonist, !flees in
handcuffs
how: report a break-in, spot a pickpocket, protect your home from thieves, start a neighborhood watch, help an
eyewitness, recognize counterfeit bills

news/newscourts
who: federal judge, defense attorney, prosecutor, juror, convicted fraudster, death row inmate
names: Supreme Court, Ninth Circuit, Rikers Island, Department of Justice, ACLU, San Quentin, Innocence Project, Old
Bailey, Sing Sing, Cook County, Manhattan, Bill of Rights
things: verdicts, plea deals, appeals, subpoenas, lawsuits, class actions, sentencings, mistrials, parole hearings,
alibis, depositions, settlements, bail reforms, grand juries
acts: !sentences a mobster to life, overturns a wrongful conviction, !rules the ban unconstitutional, walks free after
27 years, !dismisses the indictment, !testifies under immunity, awards $12 million in damages, pleads not guilty
how: prepare for jury duty, expunge a record, hire a lawyer, fight a traffic ticket, sue in small claims, write a will

news/newsfire
who: firefighter, fire chief, paramedic, rescue diver, arson inspector, smokejumper
names: Cal Fire, Sonoma County, FDNY, Red Cross, Malibu, Coast Guard, Station 19, Yosemite Valley, Getty Center,
London Fire Brigade, New South Wales, Ventura
things: wildfires, evacuations, smoke alarms, blazes, hydrants, apartment fires, embers, burn scars, rescue
helicopters, sirens, gas explosions, containment lines, ladders, ambulances
acts: pulls a toddler from a burning house, !battles a five-alarm inferno, !orders thousands to flee, rescues a hiker
from a cliff, !revives a man without a pulse, !finds a faulty heater to blame, douses a warehouse, !dies in a roof
collapse
how: make an escape plan, use an extinguisher, clear brush around a house, perform CPR, pack a go bag, put out a
grease fire

news/newswar
who: rebel commander, peace envoy, refugee, foreign correspondent, UN monitor, militia leader
names: Syria, Kurdistan, Kabul, Gaza, Yemen, Idlib, NATO, Taliban, Crimea, Baghdad, Hezbollah, Red Crescent
things: airstrikes, ceasefires, mortar shells, truces, insurgents, checkpoints, land mines, hostages, sanctions, drone
attacks, suicide bombings, refugee camps, peacekeepers, massacres
acts: !breaks the truce, !flees across the border on foot, !launches rockets at dawn, captures a key town, frees 14
prisoners, negotiates a humanitarian corridor, !escapes a siege, !withdraws troops from the north
how: help displaced families, follow the conflict, report from a front line, send aid abroad, understand the factions,
clear unexploded bombs

news/newsimmigration
who: asylum seeker, border agent, Dreamer, immigration lawyer, migrant farmworker, newly sworn citizen
names: Rio Grande, ICE, Tijuana, Dreamers Coalition, Ellis Island, El Paso, Honduras, Homeland Security, Ciudad
Juarez, Guatemala, Lampedusa, Tapachula
things: green cards, deportations, visas, border walls, detention centers, caravans, work permits, smugglers,
naturalization ceremonies, sanctuary cities, family separations, passports, refugee quotas, travel bans
acts: crosses the desert with two children, takes the oath of allegiance, wins a stay of removal, !detains hundreds in
a raid, reunites with her mother after ten years, !sues over shelter conditions, !waits months in a tent camp, !drowns
in the river
how: apply for citizenship, renew a visa, sponsor a relative, prepare for the civics test, find free legal aid, settle
in a new country

news/newsmilitary
who: Marine, Navy SEAL, Army veteran, fighter pilot, drill sergeant, Air Force general
names: Pentagon, West Point, Arlington, Fort Bragg, USS Nimitz, Pearl Harbor, Veterans Affairs, Camp Pendleton,
Lockheed Martin, Normandy, Medal of Honor, Guantanamo
things: medals, deployments, aircraft carriers, submarines, barracks, tanks, war memorials, dog tags, missiles, boot
camps, uniforms, stealth jets, parades, platoons
acts: comes home after a year overseas, !ejects from an F-16, receives a Purple Heart, surprises his daughter at
school, salutes fallen comrades, turns 100 years old, !gets demoted for misconduct, sails for the Persian Gulf
how: thank a soldier, use the GI Bill, fold a flag, translate service skills into a career, pass basic training, visit
a cemetery on Memorial Day

politics/elections
who: candidate, campaign manager, pollster, swing voter, governor-elect, election official
names: Iowa, Democratic Party, Republican Party, New Hampshire, South Carolina, Wisconsin, Nevada, Kentucky, South
Bend, Electoral College, Ohio, Super Tuesday
things: ballots, primaries, debates, polls, caucuses, recounts, attack ads, campaign donations, landslides, turnout
figures, voting machines, stump speeches, yard signs, precincts
acts: !drops out of the race, wins by 12 votes, !refuses to concede, knocks on 9000 doors, surges in a new survey,
flips a suburban district, raises $20 million, launches a White House bid
how: register to vote, vote by mail, watch the returns, volunteer for a campaign, read an opinion survey, run for
school board

politics/congress
who: senator, House speaker, lobbyist, committee chair, freshman lawmaker, whistleblower
names: Capitol Hill, Senate, House of Representatives, Statuary Hall, Judiciary Committee, White House, Library of
Congress, K Street, Freedom Caucus, Oval Office, Intelligence Committee, Congressional Budget Office
things: impeachment hearings, filibusters, bills, amendments, budget deals, shutdowns, vetoes, subcommittees, tax
breaks, roll calls, earmarks, testimonies, oversight probes, bipartisan compromises
acts: !blocks a spending measure, !subpoenas the budget office, announces retirement after 32 years, !votes to
impeach, !storms a closed-door deposition, crosses the aisle, sponsors gun legislation, !censures a colleague
how: call your representative, follow a bill, understand impeachment, tour the rotunda, write to a legislator, decode
the federal budget

politics/localgovernment
who: mayor, city councilman, zoning commissioner, county clerk, town planner, transit chief
names: New York City Hall, Detroit, Cincinnati, Sacramento, Boston, Flint, Minneapolis, Baltimore, Port Authority,
Phoenix, Nashville, San Jose
things: potholes, property levies, bus routes, parking meters, public hearings, zoning rules, water mains, sewer
lines, bond measures, sidewalks, trash pickups, homeless shelters, council meetings, speed bumps
acts: approves a downtown stadium, !resigns over a bribery scandal, !bans plastic bags, cuts the ribbon on a library,
!delays a light-rail line, raises the minimum wage, !vetoes a curfew, renames a street
how: fight a rezoning, get a pothole filled, speak at a council meeting, apply for a building permit, recycle at the
curb, pay a parking fine

politics/diplomacy
who: ambassador, foreign minister, prime minister, trade negotiator, chancellor, royal envoy
names: United Nations, Brexit, European Union, Beijing, Kremlin, Berlin, Downing Street, North Korea, Hong Kong, House
of Commons, Ankara, Brussels
things: treaties, tariffs, summits, embassies, trade wars, nuclear talks, state visits, alliances, referendums,
protests, extradition bills, backstops, expulsions, bilateral pacts
acts: signs an arms accord, !recalls its envoy, seeks a snap parliamentary poll, !walks out of talks, meets rivals in
Sochi, lifts an embargo, shakes hands at the demilitarized zone, !postpones withdrawal until January
how: understand Brexit, follow a G7 summit, read a communique, behave at a state dinner, work in a consulate, explain
tariffs to your kids

weather/hurricanes
who: storm chaser, hurricane hunter, meteorologist, coastal resident, shelter volunteer, emergency manager
names: National Hurricane Center, Bahamas, Outer Banks, Puerto Rico, Gulf Coast, Hurricane Dorian, Key West,
Galveston, NOAA, FEMA, Bermuda, Mobile Bay
things: storm surges, eyewalls, landfalls, tropical depressions, boarded-up windows, sandbags, evacuation zones, power
outages, cyclones, spaghetti models, typhoons, gusts, flooded streets, generators
acts: tracks a Category 4 system, flies into the eye, rides out the night in an attic, !warns of 140 mph winds,
rebuilds a roof after landfall, !loses everything to the sea, names the season's tenth storm, reopens the causeway
how: board up windows, stock an emergency kit, read a forecast cone, run a generator safely, file a wind claim,
protect a boat in a marina

weather/winterstorms
who: snowplow driver, forecaster, stranded motorist, school superintendent, tow truck operator, road crew foreman
names: Buffalo, National Weather Service, Great Lakes, Minnesota, Sierra Nevada, Interstate 80, Denver, Nor'easter,
Arctic, Erie, Polar Vortex, Weather Channel
things: blizzards, snow drifts, icy roads, wind chills, snow days, road salts, cold snaps, freezing rains, frostbites,
shovels, flurries, snow blowers, black ice crashes, frozen pipes
acts: !digs out from three feet of snow, predicts a white Thanksgiving, !spends the night in a buried car, !cancels
classes, clears the pass, measures the coldest November on record, !slides off the highway, skis to work
how: drive on ice, thaw a pipe, shovel without hurting your back, layer clothes, winterize a house, salt a driveway

weather/floods
who: hydrologist, levee engineer, flood victim, boat owner, dam operator, National Guard crewman
names: Mississippi River, Venice, Houston, Missouri River, Army Corps of Engineers, Thames Barrier, Bangladesh, St.
Mark's Square, Nebraska, Cedar Rapids, Yorkshire, New Orleans
things: flash floods, levees, downpours, mudslides, swollen creeks, sandbag walls, culverts, high tides, monsoons,
dams, storm drains, rain gauges, soaked basements, riverbanks
acts: rescues neighbors by canoe, opens the spillway, watches the river crest, evacuates a nursing home through
waist-deep water, !swims from a sinking car, pumps out the cellar, !finds mold behind every wall, records nine inches
of rain
how: dry out a basement, buy flood insurance, escape a submerged vehicle, fill sandbags, check a flood map, clean up
after a deluge

weather/heatwaves
who: climatologist, rancher, utility chief, water manager, construction worker, heatstroke patient
names: Death Valley, Phoenix, Lake Mead, California, Australia, Dust Bowl, Sahara, Paris, Texas Panhandle, Colorado
River, Tucson, Con Edison
things: droughts, triple-digit temperatures, heat advisories, air conditioners, dry wells, blackouts, cooling centers,
sunburns, reservoirs, crop failures, heat domes, red flag warnings, water restrictions, parched lawns
acts: logs 128 degrees in the shade, !sells off thirsty cattle, !rations water, opens a cooling shelter, sees the
hottest October since 1880, !suffers dehydration, urges residents to stay indoors, waits for rain
how: keep cool without AC, save water outdoors, spot heat exhaustion, protect pets from the sun, cut a power bill in
July, plant for dry spells

weather/tornadoes
who: tornado survivor, radar analyst, mobile home owner, storm spotter, farmer, insurance adjuster
names: Oklahoma, Kansas, Joplin, Tornado Alley, Moore, Alabama, Storm Prediction Center, Doppler, Tulsa, Dallas,
Arkansas, Wichita
things: twisters, funnel clouds, hailstones, sirens, supercells, thunderstorms, lightning strikes, uprooted trees,
storm cellars, debris fields, wall clouds, warnings, downed power lines, wind shears
acts: survives in a bathtub, films a mile-wide funnel, rates the damage EF-3, finds a wedding photo 80 miles away,
shelters under an overpass, !loses a barn in seconds, issues an alert at midnight, rebuilds from splinters
how: build a safe room, take cover in a car, read a radar map, teach kids a siren drill, repair hail dents, stay safe
from lightning

education/schools
who: kindergarten teacher, principal, school bus driver, fifth-grader, substitute teacher, crossing guard
names: Chicago Public Schools, Scholastic, Teachers Union, Clark County, National Spelling Bee, Montessori, Head
Start, PTA, Los Angeles Unified, Sesame Street, Little Rock, Title I
things: classrooms, spelling bees, report cards, strikes, school lunches, field trips, lockers, charter schools,
bullies, homework assignments, reading scores, math tests, recesses, lockdown drills
acts: !walks out over pay, buys supplies for every pupil, wins a science fair, !bans phones in class, retires after 40
years, learns sign language for a deaf classmate, !closes over mold, paints a mural in the cafeteria
how: help with algebra, stop bullying, pack a healthy lunchbox, pick a kindergarten, get kids to read, talk to a
teacher

education/universities
who: professor, freshman, dean, admissions officer, graduate student, provost
names: Harvard, Stanford, Yale, Oxford, Ivy League, University of Michigan, MIT, Ohio State, Howard University, Rhodes
Trust, Princeton, UCLA
things: scholarships, dormitories, lectures, SAT scores, tuition hikes, fraternities, diplomas, majors, endowments,
applications, sororities, dissertations, campus protests, admissions scandals
acts: earns a degree at 84, drops the SAT requirement, !pays bribes to get a daughter in, !suspends a fraternity after
a hazing death, donates $50 million, accepts a record class, defends a thesis, turns down six colleges
how: write an application essay, choose a major, survive finals week, win a scholarship, live with a roommate, tour a
campus

education/studentloans
who: borrower, financial aid counselor, recent graduate, loan servicer, community college student, education secretary
names: Navient, Department of Education, Sallie Mae, FAFSA, Corinthian Colleges, Pell Grant, Great Lakes, Federal
Student Aid, AmeriCorps, Khan Academy, Nelnet, Public Service Loan Forgiveness
things: repayment plans, defaults, debts, tuition bills, deferments, grants, forgiveness programs, interest charges,
cosigners, garnished wages, credit hours, refinancings, work-study jobs, loan scams
acts: pays off $90000 in four years, !gets denied relief, !fines a predatory college, !drops out to avoid more bills,
!erases balances of the disabled, !sues a for-profit campus, moves back with parents, !owes more than ten years ago
how: fill out the aid form, consolidate what you owe, get out of default, pay for a semester, refinance after
graduation, budget on a first salary
"""
