// fp4 in GPU order: per unit one vector of nibbles, per block one word, an f32 scale.
const T0 = 0.0;
const T1 = 0.0052083334885537624;
const T2 = 0.6666666865348816;
const T3 = 1.0;
const T4 = 0.3333333432674408;
const T5 = 0.5;
const T6 = 0.1666666716337204;
const T7 = 0.25;
const T8 = -0.0;
const T9 = -0.0052083334885537624;
const T10 = -0.6666666865348816;
const T11 = -1.0;
const T12 = -0.3333333432674408;
const T13 = -0.5;
const T14 = -0.1666666716337204;
const T15 = -0.25;
